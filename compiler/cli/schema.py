"""`sftc schema`."""

import click

from ..schemas import load_schema, schema_text

NAMES = ("recipe", "plan", "manifest", "lock", "diagnostics")


@click.command()
@click.argument("name", type=click.Choice(NAMES), default="recipe", metavar=f"[{'|'.join(NAMES)}]")
@click.option("--list", "listed", is_flag=True, help="Say which schemas there are.")
def schema(name: str, listed: bool) -> None:
    """Print a JSON schema: of the recipe, so that an editor completes it, or of a file that sftc writes.

    \b
    Examples:
      sftc schema > recipe.schema.json
      sftc schema plan
    """
    if listed:
        for one in NAMES:
            click.echo(f"{one:<12} {load_schema(f'{one}.schema.json')['description']}")
    else:
        click.echo(schema_text(f"{name}.schema.json"), nl=False)
