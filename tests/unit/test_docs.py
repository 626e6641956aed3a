"""The generated pages of docs/: the recipe reference, the codes, the commands, the tables of models.

--update-golden rewrites them.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from sftc.compiler.cli import COMMANDS, cli
from sftc.compiler.codes import CODES
from sftc.compiler.pages import code_page
from sftc.compiler.parameters import Parameters, parameters
from sftc.compiler.presets import hub_names, not_offered, preset, preset_names
from sftc.compiler.schemas import leaves, recipe_schema

LONGEST_MENU = 12
FOLDERS = (".", "codes", "commands")
DOCS = Path(__file__).resolve().parents[2] / "docs"


def recipe_reference() -> str:
    return "\n".join(_reference()) + "\n"


def _reference() -> Iterator[str]:
    schema = recipe_schema()
    yield "# Recipe reference\n"
    yield "Every key of a recipe. Keys that are Megatron options are spelled as Megatron spells them; the last column"
    yield "names the option. A key without a default is required, except in `task`, in `model` where `preset` or `hf`"
    yield "gives it, and in `lora`, `eval.generate`, `logging.wandb`, `logging.mlflow` and `launch.container`: where"
    yield "there is no such section, it asks for nothing and its defaults are not in the plan.\n"
    yield "| key | what it is | type | default | Megatron |"
    yield "|---|---|---|---|---|"
    for name, section in schema["properties"].items():
        if "properties" not in section:
            yield _row(name, section)
    for name, section in schema["properties"].items():
        if "properties" in section:
            yield f"\n## {name}\n"
            yield section["description"] + "\n"
            yield "| key | what it is | type | default | Megatron |"
            yield "|---|---|---|---|---|"
            for key, leaf in leaves(section):
                yield _row(key, leaf)


def _row(key: str, leaf: dict[str, Any]) -> str:
    kinds = leaf["type"] if isinstance(leaf["type"], list) else [leaf["type"]]
    kind = " or ".join(name for name in kinds if name != "null")
    if len(leaf.get("enum", ())) > LONGEST_MENU:
        kind = f"one of {len([value for value in leaf['enum'] if value is not None])} names"
    elif "enum" in leaf:
        kind = ", ".join(f"`{value}`" for value in leaf["enum"] if value is not None)
    elif "enum" in leaf.get("items", {}):
        kind = f"list of {', '.join(f'`{value}`' for value in leaf['items']['enum'])}"
    default = (
        f"`{json.dumps(leaf['default'])}`" if leaf.get("default") is not None else "" if "default" in leaf else "—"
    )
    options = [leaf.get("x-megatron"), leaf.get("x-megatron-false"), *leaf.get("x-megatron-cases", {}).values()]
    flags = " ".join(f"`{option}`" for option in options if option)
    return f"| `{key}` | {leaf['description'].replace('|', chr(92) + '|')} | {kind} | {default} | {flags} |"


def code_index() -> str:
    rows = "".join(f"| [{code}]({code}.md) | {entry.title} |\n" for code, entry in CODES.items())
    intro = "Each report of sftc has a code; `sftc explain CODE` prints its page. A released code keeps its meaning."
    return f"# Codes\n\n{intro}\n\n| code | what it is |\n|---|---|\n{rows}"


def _presets(count: Callable[[str], Parameters]) -> Iterator[str]:
    yield "| preset | exact for | layers | width | heads, groups | vocabulary | positions | parameters | per token |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|"
    for name in preset_names():
        values, counted = preset(name).values, count(name)
        size = {key: values[f"model.{key}"] for key in ("num_layers", "hidden_size", "vocab_size")}
        heads = f"{values['model.num_attention_heads']}, {values['model.num_query_groups']}"
        active = f"{counted.active:,}" if counted.active != counted.total else ""
        hub = "<br>".join(f"`{repository}`" for repository in hub_names(name))
        yield (
            f"| `{name}` | {hub} | {size['num_layers']} | {size['hidden_size']:,} | {heads} | {size['vocab_size']:,} | "
            f"{values['model.max_position_embeddings']:,} | {counted.total:,} | {active} |"
        )


def _not_offered() -> Iterator[str]:
    yield from (f"- `{name}`: {reason}." for name, reason in not_offered().items())


def test_the_tables_of_models_are_up_to_date(check, request: pytest.FixtureRequest) -> None:  # type: ignore[no-untyped-def]
    def count(name: str) -> Parameters:
        return parameters(check(f"preset: {name}").plan)

    page = DOCS / "models.md"
    text = page.read_text(encoding="utf-8")
    for mark, lines in {"presets": _presets(count), "not offered": _not_offered()}.items():
        table = "\n".join(lines)
        before, start, rest = text.partition(f"<!-- {mark} -->\n")
        _, end, after = rest.partition(f"\n<!-- end of {mark} -->")
        assert start, mark
        assert end, mark
        text = before + start + table + end + after
    if request.config.getoption("--update-golden"):
        page.write_text(text, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == text


def commands() -> Iterator[tuple[click.Context, click.Command]]:
    """Every command that is no group, in the order of the help."""

    def walk(command: click.Command, context: click.Context) -> Iterator[tuple[click.Context, click.Command]]:
        if not isinstance(command, click.Group):
            yield context, command
            return
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            settings = {**command.context_settings, **child.context_settings, "terminal_width": 100}
            yield from walk(child, click.Context(child, context, info_name=name, **settings))

    yield from walk(cli, click.Context(cli, info_name="sftc", terminal_width=100))


def name_of(context: click.Context) -> str:
    return context.command_path.removeprefix("sftc ").replace(" ", "-")


def command_page(context: click.Context, command: click.Command) -> str:
    return f"# {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"


def command_index() -> str:
    rows = "".join(
        f"| [{context.command_path}]({name_of(context)}.md) | {command.get_short_help_str(200)} |\n"
        for context, command in commands()
    )
    codes = (
        "Exit codes: 0 done, 1 the recipe has errors (or warnings, with `--strict`), 2 a bad command line, "
        "3 drift or a difference, 4 refused to overwrite, 70 a bug in sftc, 130 interrupted."
    )
    streams = (
        "stdout carries the product, stderr the talk. A report is talk, except that of `validate`, "
        "whose product it is, and a report that is one document (`--format json` or `sarif`), "
        "which stands alone on stdout."
    )
    return f"# Commands\n\n{codes}\n\n{streams}\n\n| command | what it does |\n|---|---|\n{rows}"


def pages() -> dict[str, str]:
    """Every generated page, by its path under docs/."""
    found = {"recipe.md": recipe_reference(), "codes/README.md": code_index(), "commands/README.md": command_index()}
    found |= {f"codes/{code}.md": code_page(code) for code in CODES}
    return found | {
        f"commands/{name_of(context)}.md": command_page(context, command) for context, command in commands()
    }


def test_the_references_are_up_to_date(request: pytest.FixtureRequest) -> None:
    wanted = pages()
    there = {path.relative_to(DOCS).as_posix() for folder in ("codes", "commands") for path in DOCS.glob(f"{folder}/*")}
    if request.config.getoption("--update-golden"):
        for stale in there - set(wanted):
            (DOCS / stale).unlink()
        for path, text in wanted.items():
            (DOCS / path).parent.mkdir(exist_ok=True)
            (DOCS / path).write_text(text, encoding="utf-8")
        there = {path for path in wanted if "/" in path}
    assert there == {path for path in wanted if "/" in path}
    for path, text in wanted.items():
        assert (DOCS / path).read_text(encoding="utf-8") == text, path


def test_every_command_has_an_example_that_names_it() -> None:
    seen = 0
    for context, command in commands():
        examples = (command.help or "").partition("Example")[2]
        assert context.command_path in examples, context.command_path
        seen += 1
    assert seen >= len(COMMANDS)


def test_the_index_names_every_page() -> None:
    """Those of codes and commands through their own indices."""
    linked = {
        folder: set(re.findall(r"\]\(([^)#:]+)", (DOCS / folder / "README.md").read_text())) for folder in FOLDERS
    }
    top = {path.name for path in DOCS.glob("*.md")} - {"README.md"}
    assert linked["."] - {"../README.md", "../CONTRIBUTING.md"} == top | {"codes/README.md", "commands/README.md"}
    for folder in ("codes", "commands"):
        assert linked[folder] == {path.name for path in (DOCS / folder).iterdir()} - {"README.md"}


@pytest.mark.parametrize("page", sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")))
def test_links_lead_somewhere(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (DOCS / page).parent.joinpath(link).exists(), link
