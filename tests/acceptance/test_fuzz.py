"""Broken recipes of every kind, in one process: each gets a report and an exit code, none a traceback, none for ever.

The examples are the same in every run; a failure prints the smallest recipe that was found for it.
"""

import json
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftc.compiler.cli import cli
from sftc.compiler.reporters import REPORTERS
from sftc.compiler.schemas import leaves, recipe_schema

ROOT = Path(__file__).resolve().parents[2]
RECIPES = [*sorted(ROOT.glob("recipes/**/*.yaml")), *sorted(ROOT.glob("tests/golden/cases/*.yaml"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in RECIPES}
SECONDS = 10  # for one recipe, which takes a small part of one
FIXED = settings(
    max_examples=200,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# What people and programs put where something else belongs.
VALUES = [
    *("", "null", "~", "true", "no", "0", "-1", "1.0", "1e400", ".nan", "0x1F", "1_000", "9" * 30, "1:30:00"),
    *(
        "[]",
        "{}",
        "[1, [2]]",
        "{a: {b: c}}",
        "[",
        "{",
        "'",
        '"',
        "&a b",
        "*a",
        "!!python/none",
        "<<: {}",
        "- a",
        "a: b",
    ),
    *("hf:", "hf://x", "$(id)", "../..", "/dev/null", ".", "é", "\u202e", "\x00", "\ud7ff", "x" * 5000, "%", "@", "`"),
]
ARGUMENTS = [
    *(["validate", "--format", style] for style in REPORTERS),
    ["validate", "--strict"],
    ["compile", "--show", "megatron.args"],
    ["compile", "--plan"],
    ["compile", "--show", "launch.sh", "--set", "train.lr=1e-4", "--set", "launch.environment.A=b"],
    ["estimate"],
    ["estimate", "--format", "json"],
    ["migrate"],
    ["explain", "lr", "--recipe"],
    ["import", "primus"],
    ["import", "megatron"],
]


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """TimeoutError after so long, wherever the program is."""

    def ring(_number: int, _frame: object) -> None:
        raise TimeoutError(f"no answer after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the recipes lie among, so that a mutated one finds its bases, hooks and templates."""
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("recipes", "tests/golden/cases"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.jsonl"))
    return folder


@contextmanager
def written(path: Path, content: bytes) -> Iterator[None]:
    """A recipe that lies there for a while: it may be the base of another."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def survives(tree: Path, name: str, content: bytes, arguments: list[str]) -> None:
    with written(tree / name, content), pytest.MonkeyPatch.context() as patch, alarm(SECONDS):
        patch.chdir(tree)
        done = CliRunner().invoke(cli, [*arguments, name])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code in (0, 1, 2), done.output
    assert done.exit_code == 0 or done.output, "a failure that says nothing"


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    """A shipped recipe after some slips of the hand."""
    name = draw(st.sampled_from(sorted(TEXTS)))
    lines = TEXTS[name].splitlines()
    for _ in range(draw(st.integers(1, 4))):
        number = draw(st.integers(0, len(lines) - 1))
        lines[number : number + 1] = draw(st.sampled_from(SLIPS))(draw, lines, number)
        lines = lines or [""]
    return name, "\n".join([*lines, ""]).encode("utf-8", "surrogatepass")


def key_of(line: str) -> re.Match[str] | None:
    return re.match(r"(?P<before>[\s-]*)(?P<key>\w+)(?P<after>:.*)", line)


def drop_a_letter(draw: st.DrawFn, lines: list[str], number: int) -> list[str]:
    if not (found := key_of(lines[number])):
        return []
    at = draw(st.integers(0, len(found["key"]) - 1))
    return [found["before"] + found["key"][:at] + found["key"][at + 1 :] + found["after"]]


def double_a_letter(draw: st.DrawFn, lines: list[str], number: int) -> list[str]:
    if not (found := key_of(lines[number])):
        return [lines[number] * 2]
    at = draw(st.integers(0, len(found["key"]) - 1))
    return [found["before"] + found["key"][: at + 1] + found["key"][at:] + found["after"]]


def other_value(draw: st.DrawFn, lines: list[str], number: int) -> list[str]:
    value = draw(st.sampled_from(VALUES))
    found = key_of(lines[number])
    return [f"{found['before']}{found['key']}: {value}" if found else value]


def delete(_draw: st.DrawFn, _lines: list[str], _number: int) -> list[str]:
    return []


def repeat(draw: st.DrawFn, lines: list[str], number: int) -> list[str]:
    return [lines[number], draw(st.sampled_from(lines))]


def indent(draw: st.DrawFn, lines: list[str], number: int) -> list[str]:
    return [draw(st.sampled_from(["", " ", "  ", "   ", "\t", "- "])) + lines[number].lstrip()]


def insert(draw: st.DrawFn, lines: list[str], number: int) -> list[str]:
    at = draw(st.integers(0, len(lines[number])))
    return [lines[number][:at] + draw(st.text(max_size=5)) + lines[number][at:]]


SLIPS = [drop_a_letter, double_a_letter, other_value, other_value, delete, repeat, indent, insert]


@FIXED
@given(recipe=mutated(), arguments=st.sampled_from(ARGUMENTS))
def test_slips_of_the_hand(tree: Path, recipe: tuple[str, bytes], arguments: list[str]) -> None:
    survives(tree, *recipe, arguments)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = {key: schema for key, schema in leaves() if "[]" not in key}


@st.composite
def other_types(draw: st.DrawFn) -> bytes:
    """The quickstart's keys, some of them with values of any kind, and other keys of the schema beside them."""
    document: dict[str, object] = json.loads(json.dumps(QUICKSTART))
    for key in draw(st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=6)):
        *sections, leaf = key.split(".")
        node = document
        for section in sections:
            below = node.setdefault(section, {})
            if not isinstance(below, dict):
                break
            node = below
        else:
            likely = st.sampled_from([*KEYS[key].get("enum", []), *KEYS[key].get("examples", []), 1, 2, 7, 0.5, True])
            node[leaf] = draw(likely | ANYTHING)
    if draw(st.booleans()):
        document[draw(st.sampled_from(sorted(recipe_schema()["properties"])))] = draw(ANYTHING)
    return json.dumps(document, indent=1).encode("utf-8", "surrogatepass")


QUICKSTART = {
    "name": "r",
    "task": {"is_sft": True},
    "model": {"preset": "llama-3.2-1b", "init": "random"},
    "tokenizer": {"path": "t"},
    "data": {"train_data_path": "d.jsonl"},
    "train": {"train_iters": 8, "global_batch_size": 8, "seq_length": 128, "lr": 0.001},
    "launch": {"nproc_per_node": 8},
}


@FIXED
@given(content=other_types(), arguments=st.sampled_from(ARGUMENTS))
def test_values_of_any_kind(tree: Path, content: bytes, arguments: list[str]) -> None:
    survives(tree, "recipes/llama-2-7b.yaml", content, arguments)


@FIXED
@given(
    content=st.binary(max_size=200)
    | st.text(alphabet="ab:-[]{}#&*!|>'\"%@`, \n\t0", max_size=60).map(str.encode)
    | st.tuples(st.sampled_from(sorted(TEXTS)), st.binary(max_size=4), st.integers(0, 4000)).map(
        lambda parts: (text := TEXTS[parts[0]].encode())[: parts[2]] + parts[1] + text[parts[2] :]
    ),
    arguments=st.sampled_from(ARGUMENTS),
)
def test_any_bytes(tree: Path, content: bytes, arguments: list[str]) -> None:
    survives(tree, "recipes/llama-2-7b.yaml", content, arguments)


@FIXED
@given(
    key=st.sampled_from(sorted(KEYS)) | st.text(max_size=12),
    value=st.sampled_from(VALUES) | st.text(max_size=12),
)
def test_any_override(tree: Path, key: str, value: str) -> None:
    name = "recipes/llama-2-7b.yaml"
    survives(tree, name, TEXTS[name].encode(), ["compile", "--plan", "--set", f"{key}={value}"])


def test_the_recipes_are_good_before_they_are_broken(tree: Path) -> None:
    """Or the fuzz would only meet the first stages."""
    for name, text in TEXTS.items():
        survives(tree, name, text.encode(), ["validate"])
    done = CliRunner().invoke(cli, ["validate", *(str(tree / name) for name in TEXTS)])
    assert done.exit_code == 0, done.output


def test_the_alarm_rings() -> None:
    with pytest.raises(TimeoutError), alarm(1):
        signal.pause()
