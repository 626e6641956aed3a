"""Each recipe in tests/errors/ gets exactly the report that lies beside it; a new case is a new pair of files."""

from pathlib import Path

import pytest

from sftc.compiler.codes import CODES
from sftc.compiler.compile import check_recipe
from sftc.compiler.reporters import render_text

FOLDER = Path(__file__).parent
RECIPES = sorted(FOLDER.glob("*.yaml"))

# A file of this folder should not be 128 KiB: tests/unit/test_source.py.
# The recipe schema has no alternative forms so far: tests/unit/test_validate.py.
ELSEWHERE = {"SFTC105", "SFTC210"}


def report(path: Path) -> str:
    checked = check_recipe(path, path.name)
    return render_text(checked.diagnostics, checked.texts, False)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_report(path: Path, request: pytest.FixtureRequest) -> None:
    expected = path.with_suffix(".out")
    actual = report(path)
    if request.config.getoption("--update-golden"):
        expected.write_text(actual, encoding="utf-8")
    assert expected.is_file(), f"{expected.name} is missing; look at the report, then run pytest --update-golden"
    assert actual == expected.read_text(encoding="utf-8")


def test_every_report_belongs_to_a_recipe() -> None:
    assert {path.stem for path in FOLDER.glob("*.out")} == {path.stem for path in RECIPES}


def test_every_code_of_a_recipe_has_one_here() -> None:
    reports = "".join(path.with_suffix(".out").read_text(encoding="utf-8") for path in RECIPES)
    of_recipes = {code for code in CODES if code[4] not in "67"}
    assert {code for code in of_recipes if f"[{code}]" not in reports} == ELSEWHERE


def test_planted_errors_give_as_many_reports() -> None:
    assert report(FOLDER / "five-at-once.yaml").count("error[SFTC") == 5
