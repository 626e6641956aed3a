"""Near spellings, keys of other sections, names from other tools."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sftc.compiler.diagnostics import Span, has_errors
from sftc.compiler.loader import load
from sftc.compiler.pointers import dotted
from sftc.compiler.schemas import recipe_schema
from sftc.compiler.source import SourceFile
from sftc.compiler.suggest import ADVICE, APART, SYNONYMS, WITHIN, Kind, Remedy, closest, key_paths, locate, remedy
from sftc.compiler.validate import validate

SIBLINGS = ["lr", "min_lr", "micro_batch_size", "global_batch_size", "lr_decay_style", "seed", "train_iters"]


@pytest.fixture(scope="module")
def schema(repo_root: Path) -> Any:
    return json.loads((repo_root / "schema/recipe.schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("mirco_batch_size", "micro_batch_size"),
        ("micro-batch-size", "micro_batch_size"),
        ("microBatchSize", "micro_batch_size"),
        ("lr_decay_stile", "lr_decay_style"),
        ("rl", "lr"),
        ("LR", "lr"),
        ("sed", "seed"),
        ("train_iter", "train_iters"),
        ("x", None),
        ("ls", None),
        ("", None),
        ("wombat", None),
        ("batch_size", None),
        ("nothing_of_the_kind", None),
    ],
)
def test_closest(word: str, meant: str | None) -> None:
    assert closest(word, SIBLINGS) == meant


def test_closest_does_not_depend_on_the_order_of_candidates() -> None:
    assert closest("cat", ["cut", "bat"]) == closest("cat", ["bat", "cut"]) == "bat"


def test_every_single_slip_in_a_long_key_is_recognized() -> None:
    key = "global_batch_size"
    for i in range(len(key)):
        swapped = key[:i] + key[i + 1 : i + 2] + key[i] + key[i + 2 :]
        for slip in (key[:i] + key[i + 1 :], key[:i] + "q" + key[i:], key[:i] + "q" + key[i + 1 :], swapped):
            assert closest(slip, SIBLINGS) == key, slip


def test_locate_names_every_section_that_has_the_key() -> None:
    schema = {
        "properties": {
            "name": {},
            "a": {"properties": {"path": {}, "deep": {"properties": {"x": {}}}}},
            "b": {"$ref": "#/$defs/b"},
            "c": {"anyOf": [{"type": "null"}, {"properties": {"y": {}}}]},
            "d": {"items": {"properties": {"path": {}}}},
        },
        "$defs": {"b": {"properties": {"path": {}, "again": {"$ref": "#/$defs/b"}}}},
    }
    assert locate("name", schema) == [""]
    assert locate("x", schema) == ["a.deep"]
    assert locate("y", schema) == ["c"]
    assert locate("path", schema)[:2] == ["a", "b"]
    assert "d[]" in locate("path", schema)
    assert locate("nowhere", schema) == []
    assert {"name", "a", "a.deep.x", "b.path", "c.y"} <= set(key_paths(schema))


def test_synonyms_lead_to_keys_that_exist(schema: Any) -> None:
    found = {*SYNONYMS.values(), *(path for names in WITHIN.values() for path in names.values())}
    assert found - set(key_paths(schema)) == set()


def test_no_name_of_another_tool_is_a_key_of_ours(schema: Any) -> None:
    keys = {path.rpartition(".")[2] for path in key_paths(schema) if not path.startswith(f"{APART}.")}
    assert keys & (SYNONYMS.keys() | ADVICE.keys()) == set()
    assert SYNONYMS.keys() & ADVICE.keys() == set()


@pytest.mark.parametrize(
    ("key", "section", "kind", "paths"),
    [
        ("samples", "eval", Kind.MISPLACED, ("eval.generate.samples",)),
        ("seed", "data", Kind.MISPLACED, ("train.seed",)),
        ("seed", "eval", Kind.MISPLACED, ("train.seed", "eval.generate.seed")),
        ("batch_size", "train", Kind.FOREIGN, ()),
        ("top_k", "model", Kind.SLIP_ELSEWHERE, ("eval.generate.top_k",)),
    ],
)
def test_words_for_answers_are_taken_for_misplaced_only_beside_them(
    key: str, section: str, kind: Kind, paths: tuple[str, ...]
) -> None:
    siblings = list(recipe_schema()["properties"][section]["properties"])
    assert remedy(key, section, siblings, recipe_schema()) == Remedy(kind=kind, paths=paths)


def test_a_length_beside_answers_is_theirs() -> None:
    """Everywhere else `max_length` is that of the training."""
    siblings = list(recipe_schema()["properties"]["eval"]["properties"])
    assert remedy("max_length", APART, siblings, recipe_schema()).paths == ("eval.generate.max_new_tokens",)
    assert remedy("max_length", "eval", siblings, recipe_schema()).paths == ("train.seq_length",)


def test_advice_names_only_keys_that_exist(schema: Any) -> None:
    paths = key_paths(schema)
    for text in ADVICE.values():
        named = [word for word in text.split("`")[1::2] if "." in word and " " not in word]
        assert [word for word in named if word not in paths] == []


def test_a_key_that_lost_a_letter_is_recognized_at_its_place(repo_root: Path) -> None:
    """Each key of the shipped recipes, without each of its letters in turn: one report, there, that names the key."""
    slips: dict[str, bool] = {}
    known = key_paths(recipe_schema())  # not the names in `megatron.args`, which the option table knows
    for path in sorted(repo_root.glob("recipes/**/*.yaml")):
        text = path.read_text(encoding="utf-8")
        document, _ = load(SourceFile(name="r.yaml", text=text, sha256=""))
        assert document is not None
        for pointer, place in document.places.items():
            seen = any(slip.startswith(f"{pointer} ") for slip in slips)
            if place.key and not seen and dotted(pointer) in known:
                for slip, good in _slips(text, pointer, place.key):
                    slips[f"{pointer} {slip}"] = good
    missed = [slip for slip, good in slips.items() if not good]
    print(f"{1 - len(missed) / len(slips):.1%} of {len(slips)} slips are recognized; not {missed}")
    assert len(slips) > 400
    assert len(missed) / len(slips) <= 0.05


def _slips(text: str, pointer: str, at: Span) -> Iterator[tuple[str, bool]]:
    lines, key = text.split("\n"), pointer.rpartition("/")[2]
    line = lines[at.line - 1]
    for left_out in range(len(key)):
        slip = key[:left_out] + key[left_out + 1 :]
        lines[at.line - 1] = line[: at.column - 1] + slip + line[at.end_column - 1 :]
        document, _ = load(SourceFile(name="r.yaml", text="\n".join(lines), sha256=""))
        assert document is not None
        found = validate(document, recipe_schema())
        assert has_errors(found), slip
        meant = [item for item in found if re.search(rf"did you mean .*`([a-z_.]+\.)?{key}`", item.help or "")]
        places = [(item.span.line, item.span.column) for item in meant if item.span]
        yield slip, places == [(at.line, at.column)] and len(found) == 1


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("finetune_lr", "train.lr"),
        ("learning_rate", "train.lr"),
        ("per_device_train_batch_size", "train.micro_batch_size"),
        ("max_seq_length", "train.seq_length"),
        ("model_name_or_path", "model.load"),
        ("tensor_parallel_size", "parallel.tensor_model_parallel_size"),
    ],
)
def test_the_names_that_matter_most(key: str, path: str) -> None:
    assert SYNONYMS[key] == path
