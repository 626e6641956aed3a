"""Answer patterns that the rules refuse, and those that they let pass."""

import json
from pathlib import Path

import pytest

from sftc.compiler.compile import check_recipe
from sftc.compiler.overrides import problem
from sftc.compiler.plan import Default
from sftc.compiler.schemas import leaves, switch_of

ROOT = Path(__file__).resolve().parents[2]


def found(folder: Path, pattern: str) -> list[str]:
    recipe = {
        "base": "quickstart.yaml",
        "name": "patterns",
        "eval": {"generate": {"samples": 4, "max_new_tokens": 16, "answer_pattern": pattern}},
    }
    (folder / "quickstart.yaml").write_text((ROOT / "recipes/quickstart/recipe.yaml").read_text())
    (folder / "r.yaml").write_text(json.dumps(recipe))
    diagnostics = check_recipe(folder / "r.yaml", "r.yaml").diagnostics
    assert {item.code for item in diagnostics} <= {"SFTC487"}
    return [item.message for item in diagnostics]


@pytest.mark.parametrize(
    "pattern",
    [
        r"#### (-?[\d.,]+)",
        r"\d+",
        r"(?i)(?:answer|result): (.+)",
        r"(?s).*(\d)",
        r"x*y",
        r"(?P<answer>\d+)",
        r"^\w",
        "[[a]",
    ],
)
def test_patterns_that_find_something(tmp_path: Path, pattern: str) -> None:
    assert found(tmp_path, pattern) == []


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("(", "missing ), unterminated subpattern, at character 1: `(`"),
        ("ab[0-9", "unterminated character set, at character 3: `[0-9`"),
        ("(?P<", "missing group name, at its end"),
        ("(?<=a+)b", "look-behind requires fixed-width pattern"),
        ("a{99999999999999999999}", "the repetition number is too large"),
        (r"(a)(b)", "has 2 groups"),
        (r"\d*", "matches the empty text"),
        (r"x?", "matches the empty text"),
        (r"\b", "matches the empty text"),
        (r"(?=\d)", "matches the empty text"),
        (r"$", "matches the empty text"),
    ],
)
def test_patterns_that_are_refused(tmp_path: Path, pattern: str, told: str) -> None:
    (message,) = found(tmp_path, pattern)
    assert told in message


@pytest.mark.parametrize(
    ("value", "told"),
    [("#### (.+)", True), ("  #### (.+)", True), ("'#### (.+)'", False), ("null # the whole text", False), ("", False)],
)
def test_a_comment_is_no_pattern(tmp_path: Path, value: str, told: bool) -> None:
    """YAML reads `answer_pattern: #### (.+)` as nothing, and whole texts would be compared."""
    text = (ROOT / "recipes/quickstart/recipe.yaml").read_text()
    (tmp_path / "r.yaml").write_text(
        text.replace("    samples: 80\n", f"    samples: 80\n    answer_pattern: {value}\n")
    )
    found = check_recipe(tmp_path / "r.yaml", "r.yaml").diagnostics
    assert [(item.code, "`#` begins a comment" in item.message) for item in found] == [("SFTC487", True)] * told


@pytest.mark.parametrize(
    ("value", "is_comment"),
    [
        *((value, True) for value in ("#### (.+)", "An #x", " # x", "8 # x")),
        *((value, False) for value in ("'#### (.+)'", '"a # b"', "[a, '# b']", "{A: ' # '}", "a#b", "", "8")),
    ],
)
def test_an_override_has_no_comment(value: str, is_comment: bool) -> None:
    assert ("comment" in (problem(f"eval.generate.answer_pattern={value}") or "")) == is_comment


def test_a_section_that_is_not_there_has_no_values() -> None:
    """Its defaults would be read as settings of the run."""
    plan = check_recipe(ROOT / "recipes/smollm2-1.7b.yaml", "recipe.yaml").plan
    assert plan is not None
    inside = [key for key, _ in leaves() if switch_of(key)]
    assert {switch_of(key) for key in inside} == {
        *("lora", "eval.generate", "logging.wandb", "logging.mlflow", "launch.container"),
    }
    for key in inside:
        assert (plan[key], plan.values[key].origin) == (None, Default()), key


def test_defaults_of_a_section_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "whole.yaml").write_text((ROOT / "recipes/smollm2-1.7b.yaml").read_text())
    (tmp_path / "r.yaml").write_text("base: whole.yaml\nname: r\n")
    overrides = ["eval.generate.samples=4", "logging.wandb.project=mine"]
    plan = check_recipe(tmp_path / "r.yaml", "r.yaml", overrides).plan
    assert plan is not None
    assert plan["eval.generate.metrics"] == ["exact_match", "token_accuracy", "perplexity"]
    assert (plan["eval.generate.when"], plan["eval.generate.temperature"]) == ("evaluation", 0.0)
    assert plan["logging.wandb.tags"] == []
