"""A recipe upon its bases and under its overrides: what holds, and where it stands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftc.compiler.compile import artifacts, check_recipe
from sftc.compiler.layers import Reading, origin_of, read_layers
from sftc.compiler.manifest import overrides_in
from sftc.compiler.overrides import problem
from sftc.compiler.plan import FromOverride, FromRecipe, Merged

type Read = Callable[..., Reading]

COMMON = """\
name: common
description: What the base says about itself.
task: {is_instruction_dataset: true}
model: {num_layers: 4, hidden_size: 128, ffn_hidden_size: 256, num_attention_heads: 4, vocab_size: 512,
        max_position_embeddings: 128, init: random}
tokenizer: {path: tokenizer}
data: {train_data_path: train.jsonl}
train: {train_iters: 10, global_batch_size: 8, seq_length: 64, lr: 1e-3}
launch: {nproc_per_node: 1}
"""


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """`read({"a.yaml": text, ...}, overrides)` reads the first of the files."""

    def run(files: dict[str, str], overrides: tuple[str, ...] = ()) -> Reading:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        first = next(iter(files))
        return read_layers(tmp_path / first, first, overrides)

    return run


def data(reading: Reading) -> dict[str, Any]:
    assert reading.diagnostics == []
    assert reading.document is not None
    return reading.document.data


@pytest.mark.parametrize(
    ("base", "recipe", "merged"),
    [
        ("a: {x: 1, y: 2}", "a: {y: 3}", {"a": {"x": 1, "y": 3}}),
        ("a: {x: {p: 1}}", "a: {x: {q: 2}}", {"a": {"x": {"p": 1, "q": 2}}}),
        ("a: [1, 2, 3]", "a: [4]", {"a": [4]}),
        ("a: [{x: 1}]", "a: [{y: 2}]", {"a": [{"y": 2}]}),
        ("a: {x: 1}", "a: null", {"a": None}),
        ("a: {x: 1}", "a: {}", {"a": {"x": 1}}),
        ("a: {x: 1}", "a: word", {"a": "word"}),
        ("a: word", "a: {x: 1}", {"a": {"x": 1}}),
        ("a: null", "b: 1", {"a": None, "b": 1}),
        ("name: low\ndescription: low\na: 1", "b: 1", {"a": 1, "b": 1}),
        ("name: low", "name: high", {"name": "high"}),
    ],
)
def test_mappings_are_merged_and_the_rest_is_replaced(read: Read, base: str, recipe: str, merged: Any) -> None:
    assert data(read({"r.yaml": f"base: b.yaml\n{recipe}", "b.yaml": base})) == merged


def test_a_chain_is_followed_from_file_to_file(read: Read) -> None:
    reading = read(
        {
            "runs/r.yaml": "base: ../house/b.yaml\nc: 3",
            "house/b.yaml": "base: deep/a.yaml\nb: 2\nc: 2",
            "house/deep/a.yaml": "a: 1\nb: 1\nc: 1",
        }
    )
    assert data(reading) == {"a": 1, "b": 2, "c": 3}
    assert reading.document is not None
    assert [origin_of(reading.document, f"/{key}", 0) for key in "abc"] == [
        FromRecipe(file="../house/deep/a.yaml"),
        FromRecipe(file="../house/b.yaml"),
        FromRecipe(),
    ]
    places = reading.document.places
    assert [places[f"/{key}"].value.file for key in "abc"] == [
        "runs/../house/deep/a.yaml",
        "runs/../house/b.yaml",
        "runs/r.yaml",
    ]


def test_every_value_is_found_at_its_place(read: Read) -> None:
    reading = read(
        {"r.yaml": "base: b.yaml\na: {x: [one, two]}\n", "b.yaml": "a:\n  x: [zero, zero, zero]\n  y: three\n"},
        ("a.z=four", "n.é.m={p: [five, six]}", "a.y=  seven # eight"),
    )
    document = reading.document
    assert document is not None
    for pointer, place in document.places.items():
        if pointer:
            assert place.key is None or document.text(place.key) == pointer.rpartition("/")[2]
    found = {pointer: document.text(place.value) for pointer, place in document.places.items()}
    assert found["/a/x/1"] == "two"
    assert "/a/x/2" not in found
    assert (found["/a/y"], found["/a/z"], found["/n/é/m/p/1"]) == ("seven", "four", "six")
    assert found["/n"] == "é.m={p: [five, six]}"
    assert document.data == {
        "a": {"x": ["one", "two"], "y": "seven", "z": "four"},
        "n": {"é": {"m": {"p": ["five", "six"]}}},
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("3", 3),
        ("true", True),
        ('"3"', "3"),
        ("'a: b'", "a: b"),
        ("a=b", "a=b"),
        ("[1, two]", [1, "two"]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("", None),
        ("null", None),
        ("  spaced out  ", "spaced out"),
    ],
)
def test_an_override_is_read_as_a_recipe_s_value_is(read: Read, text: str, value: Any) -> None:
    in_a_recipe = data(read({"r.yaml": f"k: {text}\n"}))["k"]
    assert data(read({"r.yaml": "k: before\n"}, (f"k={text}",)))["k"] == value == in_a_recipe


@pytest.mark.parametrize(
    ("text", "code", "column"),
    [
        ("yes", "SFTC120", 14),
        ("1_000", "SFTC122", 14),
        ("*name", "SFTC116", 14),
        ("!!str x", "SFTC118", 14),
        ("[1, 2", "SFTC110", 19),
        ("[a, .nan]", "SFTC121", 18),
        ("{a: 1, a: 2}", "SFTC114", 21),
        ("a: b", "SFTC110", 15),
        ("\t", "SFTC111", 14),
    ],
)
def test_a_bad_override_is_reported_where_it_is(read: Read, text: str, code: str, column: int) -> None:
    reading = read({"r.yaml": "s: {k: 1}\n"}, ("s.ok=1", f"s.kk.k={text}"))
    (item,) = reading.diagnostics
    assert item.span is not None
    assert (item.code, item.span.file, item.span.line) == (code, "<command-line>", 2)
    assert item.span.column == column


def test_the_last_of_two_overrides_holds(read: Read) -> None:
    reading = read({"r.yaml": "a: {b: 1, c: 1}"}, ("a.b=2", "a={b: 3}", "a.c=4"))
    assert data(reading) == {"a": {"b": 3, "c": 4}}


@pytest.mark.parametrize("text", ["a", "=1", ".a=1", "a.=1", "a..b=1", "a b=1", "a=1\nb=2", "base=x", "base.x=1", ""])
def test_what_is_no_override(text: str) -> None:
    assert problem(text)


def test_origins_of_a_free_mapping_are_those_of_its_entries(read: Read) -> None:
    files = {"r.yaml": "base: b.yaml\ne: {A: x}\nf: {}\n", "b.yaml": "e: {A: y, B: y}\nf: {C: y}\n"}
    document = read(files, ("e.D=z",)).document
    assert document is not None
    assert origin_of(document, "/e", document.data["e"]) == Merged(
        entries=(("A", FromRecipe()), ("B", FromRecipe(file="b.yaml")), ("D", FromOverride()))
    )
    assert origin_of(document, "/f", document.data["f"]) == FromRecipe(file="b.yaml")


def test_what_replaces_a_broken_value_mends_it(read: Read) -> None:
    reading = read({"r.yaml": "base: b.yaml\na: {k: 1}", "b.yaml": "a: {k: yes}"})
    assert [item.code for item in reading.diagnostics] == ["SFTC120"]
    assert reading.document is not None
    assert reading.document.broken == frozenset()


def compiled(folder: Path, name: str, overrides: tuple[str, ...] = ()) -> dict[str, bytes]:
    checked = check_recipe(folder / name, name, overrides)
    assert checked.plan is not None, checked.diagnostics
    return {artifact.path: artifact.content for artifact in artifacts(checked)}


def test_a_base_is_an_input_and_its_comments_are_none(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(COMMON)
    (tmp_path / "r.yaml").write_text("base: b.yaml\nname: r\n")
    first = compiled(tmp_path, "r.yaml")
    (tmp_path / "b.yaml").write_text("# a comment\n" + COMMON)
    (tmp_path / "r.yaml").write_text("# another\nbase: b.yaml\nname: r # one more\n")
    commented = compiled(tmp_path, "r.yaml")
    assert {path for path in first if first[path] != commented[path]} == {"origins.json"}
    # A value that the recipe replaces changes nothing that runs, and is an input all the same.
    (tmp_path / "b.yaml").write_text("# a comment\n" + COMMON.replace("name: common", "name: renamed"))
    renamed = compiled(tmp_path, "r.yaml")
    assert {path for path in first if commented[path] != renamed[path]} == {"manifest.json", "SHA256SUMS"}


def test_overrides_are_inputs_in_any_order_and_spelling(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(COMMON)
    plain = compiled(tmp_path, "r.yaml")
    one = compiled(tmp_path, "r.yaml", ("train.lr=2e-3", "train.seed=7"))
    other = compiled(tmp_path, "r.yaml", ("train.seed=7", "train.lr=1", "train={lr: 0.002}"))
    assert {path for path in one if one[path] != other[path]} == {"origins.json"}
    assert overrides_in(one["manifest.json"]) == ["train.lr=0.002", "train.seed=7"]
    assert overrides_in(plain["manifest.json"]) == overrides_in(b"{}") == overrides_in(b"no manifest") == []
    same = compiled(tmp_path, "r.yaml", ("train.lr=1e-3",))
    assert {path for path in plain if plain[path] != same[path]} == {
        "plan.json",
        "manifest.json",
        "SHA256SUMS",
        "origins.json",
    }


def test_compile_time_paths_start_where_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("house", "runs", "here"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.jinja").write_text(folder)
        (tmp_path / folder / "own.py").write_text(f"def loss(losses, loss_mask, batch): return '{folder}'")
    house = (
        COMMON.replace("path: tokenizer", "path: tokenizer, chat_template: t.jinja") + "hooks: {loss: own.py:loss}\n"
    )
    (tmp_path / "house/b.yaml").write_text(house)
    recipe = tmp_path / "runs/r.yaml"
    recipe.write_text("base: ../house/b.yaml\nname: r\n")
    monkeypatch.chdir(tmp_path / "here")

    def template(*overrides: str) -> str | None:
        plan = check_recipe(recipe, "r.yaml", overrides).plan
        assert plan is not None
        return plan.chat_template

    def hook(*overrides: str) -> str:
        plan = check_recipe(recipe, "r.yaml", overrides).plan
        assert plan is not None
        return str(plan.hooks[0].text).partition("return ")[2]

    assert template() == "house"
    assert template("tokenizer.chat_template=t.jinja") == "here"
    assert template("tokenizer.chat_template=null") is None
    assert (hook(), hook("hooks.loss=own.py:loss")) == ("'house'", "'here'")
    recipe.write_text("base: ../house/b.yaml\nname: r\ntokenizer: {chat_template: t.jinja}\n")
    assert template() == "runs"
