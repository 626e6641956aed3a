"""The committed option tables against the Megatron that is installed here, and how a table is read off a parser."""

import argparse
import enum
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sftc.runtime import options


class Backend(enum.Enum):
    flash = 1
    local = 2


def row_of(*arguments: str, **settings: Any) -> dict[str, Any]:
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument(*arguments, **settings)
    (row,) = options.option_rows(parser)
    return row


def installed_table(repo_root: Path) -> tuple[str, Path]:
    """The installed release and the committed table of its version line, or a skip that says what is missing."""
    try:
        release = importlib.metadata.version("megatron-core")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("megatron-core is not installed, so there is no parser to compare with")
    line = ".".join(release.split(".")[:2])
    path = repo_root / "schema" / "megatron" / f"{line}.json"
    if not path.is_file():
        pytest.skip(f"megatron-core {release} is installed, and there is no table for {line}")
    committed = json.loads(path.read_text(encoding="utf-8"))["megatron_core"]
    if committed != release:
        pytest.skip(f"the table for {line} was made from megatron-core {committed}, and {release} is installed")
    return release, path


@pytest.mark.skipif(sys.platform != "linux", reason="the choices of --exit-signal are the signals of Linux")
def test_committed_table_is_what_the_installed_parser_says(repo_root: Path) -> None:
    _, path = installed_table(repo_root)
    launched = os.environ | {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "8", "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-m", "sftc.runtime.options"], capture_output=True, env=launched, cwd=repo_root, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == path.read_bytes()


def test_tables_are_sorted_one_option_per_line_and_name_each_string_once(repo_root: Path) -> None:
    tables = sorted((repo_root / "schema" / "megatron").glob("[0-9]*.json"))
    assert tables
    for path in tables:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text)
        strings = [string for row in table["options"] for string in row["strings"]]
        assert table["megatron_core"].startswith(path.stem + ".")
        assert len(table["options"]) == table["options_count"]
        assert len(strings) == len(set(strings)) == table["strings_count"]
        assert table["options"] == sorted(table["options"], key=lambda row: row["strings"][0])
        assert text.count('\n    {"strings"') == table["options_count"]
        assert not any("help" in row for row in table["options"])


def test_value_option() -> None:
    assert row_of("--lr", type=float) == {
        "strings": ["--lr"],
        "dest": "lr",
        "action": "store",
        "type": "float",
        "default": None,
    }


def test_type_defaults_to_str_and_nargs_choices_required_are_kept() -> None:
    row = row_of("--part", "-p", nargs="+", choices=("a", "b"), required=True, default=["a"])
    assert row == {
        "strings": ["--part", "-p"],
        "dest": "part",
        "action": "store",
        "type": "str",
        "nargs": "+",
        "choices": ["a", "b"],
        "default": ["a"],
        "required": True,
    }


def test_enum_is_spelled_by_member_name() -> None:
    row = row_of("--backend", type=lambda text: Backend[text], choices=list(Backend), default=Backend.local)
    assert (row["type"], row["choices"], row["default"]) == ("Backend", ["flash", "local"], "local")


@pytest.mark.parametrize(
    ("settings", "kind", "default"),
    [
        ({"action": "store_true"}, "store_true", False),
        ({"action": "store_false"}, "store_false", True),
        ({"action": "count"}, "count", None),
        ({"action": argparse.BooleanOptionalAction, "default": False}, "boolean_optional", False),
    ],
)
def test_flags_take_no_value(settings: dict[str, Any], kind: str, default: object) -> None:
    row = row_of("--flag", **settings)
    assert (row["action"], row["default"]) == (kind, default)
    assert "type" not in row
    assert "nargs" not in row
    assert row["strings"] == (["--flag", "--no-flag"] if kind == "boolean_optional" else ["--flag"])


def test_unknown_kind_of_action_is_not_guessed() -> None:
    with pytest.raises(KeyError, match="_VersionAction"):
        row_of("--version", action="version", version="1")


def test_default_without_json_spelling_is_not_guessed() -> None:
    with pytest.raises(TypeError, match="no JSON spelling"):
        row_of("--path", default=object())


def test_launcher_variables_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    with options.quiet_single_process():
        assert "WORLD_SIZE" not in os.environ
    assert os.environ["WORLD_SIZE"] == "8"
