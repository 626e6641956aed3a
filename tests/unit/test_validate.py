"""Schema violations: each once, at its place, in words."""

import json
from pathlib import Path
from typing import Any

import pytest

from sftc.compiler.diagnostics import Diagnostic
from sftc.compiler.loader import load
from sftc.compiler.source import SourceFile
from sftc.compiler.validate import validate

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 8, "examples": ["demo"]},
        "train": {"$ref": "#/$defs/train"},
        "model": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "load": {"type": ["string", "null"], "default": None},
                "layers": {"type": "integer", "minimum": 1, "maximum": 96},
                "heads": {"type": ["integer", "null"], "multipleOf": 2, "default": None},
                "norm": {"enum": ["RMSNorm", "LayerNorm", None]},
                "impl": {"const": "local"},
            },
        },
        "mix": {
            "type": "array",
            "minItems": 1,
            "maxItems": 3,
            "uniqueItems": True,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["path"],
                "properties": {"path": {"type": "string"}, "weight": {"type": "number", "exclusiveMinimum": 0}},
            },
        },
        "save": {"anyOf": [{"type": "integer"}, {"enum": ["never", "last"]}]},
        "part": {"oneOf": [{"type": "string"}, {"type": "object", "properties": {"n": {"type": "integer"}}}]},
        "style": {"oneOf": [{"const": "linear", "title": "Linear"}, {"const": "cosine", "title": "Cosine"}]},
        "env": {
            "type": "object",
            "propertyNames": {"pattern": "^[A-Z]+$"},
            "additionalProperties": {"type": "string"},
        },
    },
    "$defs": {
        "train": {
            "type": "object",
            "additionalProperties": False,
            "required": ["lr"],
            "properties": {
                "lr": {"type": "number", "exclusiveMinimum": 0, "examples": [1e-05]},
                "min_lr": {"type": "number", "minimum": 0, "default": 0.0},
                "precision": {"type": "string", "enum": ["bf16", "fp16", "fp32"]},
                "shuffle": {"type": "boolean"},
            },
        }
    },
}


def check(text: str, schema: dict[str, Any] | None = None) -> list[Diagnostic]:
    document, _ = load(SourceFile(name="r.yaml", text=text, sha256=""))
    assert document is not None
    return validate(document, schema or SCHEMA)


def one(text: str) -> Diagnostic:
    found = check(text)
    assert len(found) == 1, found
    return found[0]


def place(item: Diagnostic) -> tuple[int, int, int]:
    assert item.span is not None
    return item.span.line, item.span.column, item.span.end_column


def test_a_recipe_without_faults_has_no_reports() -> None:
    text = """
name: demo
train: {lr: 1e-5, min_lr: 0, precision: bf16, shuffle: true}
model: {load: null, layers: 2, heads: 4, norm: RMSNorm, impl: local}
mix: [{path: a, weight: 0.5}, {path: b}]
save: never
part: {n: 1}
style: cosine
env: {AB: c}
"""
    assert check(text) == []


@pytest.mark.parametrize(
    ("text", "code", "at", "message", "help"),
    [
        ("train: {lr: fast}", "SFTC202", (1, 13, 17), "`train.lr` needs a number, found the string `fast`", None),
        ("train: {lr: [1]}", "SFTC202", (1, 13, 16), "`train.lr` needs a number, found a list", None),
        ("train: {lr: true}", "SFTC202", (1, 13, 17), "`train.lr` needs a number, found the boolean `true`", None),
        ("train: {lr: }", "SFTC202", (1, 12, 12), "`train.lr` has no value", "give it a number"),
        (
            "train: {lr: 1, min_lr: }",
            "SFTC202",
            (1, 23, 23),
            "`train.min_lr` has no value",
            "give it a number, or remove the line",
        ),
        ("name: 12", "SFTC202", (1, 7, 9), "`name` needs a string, found the integer `12`", 'put it in quotes: `"12"`'),
        (
            "name: true",
            "SFTC202",
            (1, 7, 11),
            "`name` needs a string, found the boolean `true`",
            'put it in quotes: `"true"`',
        ),
        (
            "model: 3",
            "SFTC202",
            (1, 8, 9),
            "`model` needs a mapping, found the integer `3`",
            "write indented `key: value` lines below `model:`",
        ),
        (
            "mix: a",
            "SFTC202",
            (1, 6, 7),
            "`mix` needs a list, found the string `a`",
            "write a list: `[a, b]`, or one `- a` per line",
        ),
        (
            "model: {layers: 1.0}",
            "SFTC203",
            (1, 17, 20),
            "`model.layers` needs an integer, found the decimal number `1.0`",
            "write `1`",
        ),
        (
            "model: {heads: 1e2}",
            "SFTC203",
            (1, 16, 19),
            "`model.heads` needs an integer, found the decimal number `1e2`",
            "write `100`",
        ),
        (
            "model: {layers: 1.5}",
            "SFTC203",
            (1, 17, 20),
            "`model.layers` needs an integer, found the decimal number `1.5`",
            "leave out the fraction",
        ),
        (
            'train: {lr: "1e-5"}',
            "SFTC204",
            (1, 13, 19),
            '`train.lr` needs a number, found the string `"1e-5"`',
            "remove the quotes: `1e-5`",
        ),
        (
            "train: {lr: 1, shuffle: 'true'}",
            "SFTC204",
            (1, 25, 31),
            "`train.shuffle` needs `true` or `false`, found the string `'true'`",
            "remove the quotes: `true`",
        ),
        (
            "train: {lr: 1, precision: bf61}",
            "SFTC205",
            (1, 27, 31),
            "`train.precision` is `bf61`, not one of `bf16`, `fp16`, `fp32`",
            "did you mean `bf16`?",
        ),
        ("model: {norm: 5}", "SFTC205", (1, 15, 16), "`model.norm` is `5`, not one of `RMSNorm`, `LayerNorm`", None),
        ("model: {impl: te}", "SFTC205", (1, 15, 17), "`model.impl` is `te`; it has to be `local`", None),
        ("model: {layers: 0}", "SFTC206", (1, 17, 18), "`model.layers` is `0`; it has to be at least 1", None),
        ("model: {layers: 97}", "SFTC206", (1, 17, 19), "`model.layers` is `97`; it has to be at most 96", None),
        ("model: {heads: 3}", "SFTC206", (1, 16, 17), "`model.heads` is `3`; it has to be a multiple of 2", None),
        ("train: {lr: 0.0}", "SFTC206", (1, 13, 16), "`train.lr` is `0.0`; it has to be greater than 0", None),
        ("a: 1\n\ntrain: {}", "SFTC207", (3, 1, 6), "`train` has no key `lr`", "add `lr: 1e-05`"),
        ("mix: [{weight: 1}]", "SFTC207", (1, 7, 18), "`mix[0]` has no key `path`", "add `path:` with a string"),
        (
            "name: Demo",
            "SFTC208",
            (1, 7, 11),
            "`name` is `Demo`, which does not fit the pattern `^[a-z]+$`",
            "for example `demo`",
        ),
        ("name: x", "SFTC208", (1, 7, 8), "`name` is `x`, which has 1 character, fewer than 2", "for example `demo`"),
        ("env: {ab: c}", "SFTC208", (1, 7, 9), "the key `ab` of `env` does not fit the pattern `^[A-Z]+$`", None),
        ("mix: []", "SFTC209", (1, 6, 8), "`mix` has 0 items; it has to have at least 1", None),
        ("mix: [{path: a}, {path: a}]", "SFTC209", (1, 6, 28), "`mix` holds the same item twice", None),
        (
            "save: nevr",
            "SFTC210",
            (1, 7, 11),
            "`save` needs an integer, `never` or `last`, found the string `nevr`",
            "did you mean `never`?",
        ),
        ("part: 3", "SFTC210", (1, 7, 8), "`part` needs a string or a mapping, found the integer `3`", None),
        ("part: {n: x}", "SFTC202", (1, 11, 12), "`part.n` needs an integer, found the string `x`", None),
        (
            "style: cosin",
            "SFTC205",
            (1, 8, 13),
            "`style` is `cosin`, not one of `linear`, `cosine`",
            "did you mean `cosine`?",
        ),
    ],
)
def test_wording_and_place(text: str, code: str, at: tuple[int, int, int], message: str, help: str | None) -> None:
    found = [item for item in check(text) if item.message != "unknown key `a`"]
    assert [(item.code, place(item), item.message, item.help) for item in found] == [(code, at, message, help)]


@pytest.mark.parametrize(
    ("text", "message", "help"),
    [
        ("modle: {}", "unknown key `modle`", "did you mean `model`?"),
        ("model: {laeyrs: 2}", "unknown key `laeyrs` in `model`", "did you mean `layers`?"),
        ("lr: 1", "unknown key `lr`", "`lr` belongs under `train`"),
        ("model: {train: 1}", "unknown key `train` in `model`", "`train` belongs on the outermost level"),
        ("train: {lr: 1, load: x}", "unknown key `load` in `train`", "`load` belongs under `model`"),
        (
            "train: {finetune_lr: 1}",
            "unknown key `finetune_lr` in `train`",
            "`finetune_lr` is spelled `lr` here (`train.lr`)",
        ),
        (
            "model_name_or_path: x",
            "unknown key `model_name_or_path`",
            "`model_name_or_path` is spelled `load` here (`model.load`)",
        ),
        ("bf16: true", "unknown key `bf16`", "write `precision: bf16` under `train`"),
        ("model: {percision: bf16}", "unknown key `percision` in `model`", "did you mean `train.precision`?"),
        (
            "train: {lr: 1, wombat: 1}",
            "unknown key `wombat` in `train`",
            "the keys here are `lr`, `min_lr`, `precision`, `shuffle`",
        ),
        ("mix: [{path: a, wieght: 1}]", "unknown key `wieght` in `mix[0]`", "did you mean `weight`?"),
    ],
)
def test_unknown_key_is_answered_with_the_one_that_was_meant(text: str, message: str, help: str) -> None:
    item = one(text)
    assert (item.code, item.message, item.help) == ("SFTC201", message, help)
    key = message.split("`")[1]
    assert place(item)[1:] == (text.index(key) + 1, text.index(key) + 1 + len(key))


@pytest.mark.parametrize("text", ['name: "demo\\n"', 'env: {"HOME\\n": x}'])
def test_a_pattern_ends_where_the_text_ends(text: str) -> None:
    assert [report.code for report in check(f"{text}\ntrain: {{lr: 1}}\n") if report.code == "SFTC208"] == ["SFTC208"]


def test_all_at_once_and_in_order() -> None:
    text = "name: 5\ntrain:\n  precision: bf61\n  min_lr: -1\nmodel:\n  layers: 1.0\n  x: 1\nmix: []\n"
    assert [(item.code, place(item)[0]) for item in check(text)] == [
        ("SFTC202", 1),
        ("SFTC207", 2),
        ("SFTC205", 3),
        ("SFTC206", 4),
        ("SFTC203", 6),
        ("SFTC201", 7),
        ("SFTC209", 8),
    ]


def test_each_unknown_and_each_missing_key_has_its_own_report() -> None:
    schema = {"type": "object", "additionalProperties": False, "required": ["a", "b"], "properties": {"a": {}, "b": {}}}
    found = check("xxxx: 1\nyyyy: 2\n", schema)
    assert [item.message for item in found] == [
        "unknown key `xxxx`",
        "the recipe has no key `a`",
        "the recipe has no key `b`",
        "unknown key `yyyy`",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "train: {lr: yes}",
        "train: {lr: .nan}",
        "train: {lr: *x}",
        "train: {<<: {lr: 1}}",
        "train: *x",
        "mix: *x",
    ],
)
def test_what_the_loader_reported_is_not_reported_again(text: str) -> None:
    assert check(text) == []


def test_type_error_hides_the_other_rules_for_the_same_value() -> None:
    assert [item.code for item in check("train: {lr: 1, precision: 5}")] == ["SFTC202"]


def test_missing_section_is_one_report() -> None:
    schema = {**SCHEMA, "required": ["train"]}
    assert [item.message for item in check("name: demo", schema)] == ["the recipe has no section `train`"]
    assert [item.code for item in check("trian: {lr: 1}", schema)] == ["SFTC201"]
    assert [item.code for item in check("lr: 1", schema)] == ["SFTC201"]


def test_flat_recipe_of_another_tool_against_the_real_schema(repo_root: Path) -> None:
    schema = json.loads((repo_root / "schema/recipe.schema.json").read_text(encoding="utf-8"))
    found = check("finetune_lr: 1e-5\nmicro_batch_size: 1\nis_sft: true\n", schema)
    helps = [item.help for item in found if item.code == "SFTC201"]
    assert helps == [
        "`finetune_lr` is spelled `lr` here (`train.lr`)",
        "`micro_batch_size` belongs under `train`",
        "`is_sft` belongs under `task`",
    ]
    assert not [item for item in found if item.message == "the recipe has no section `train`"]
