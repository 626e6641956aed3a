"""`sftc completion`."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands, options, recipe keys and codes in a shell.

    \b
    Examples:
      source <(sftc completion bash)
      sftc completion zsh > ~/.zfunc/_sftc
      sftc completion fish > ~/.config/fish/completions/sftc.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "sftc", "_SFTC_COMPLETE").source())
