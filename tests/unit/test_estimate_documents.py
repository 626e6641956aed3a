"""What the documentation and the recipes say of estimates is what is estimated."""

import re
from pathlib import Path

import pytest

from sftc.compiler.compile import check_recipe
from sftc.compiler.estimate import estimate
from sftc.compiler.estimate.advice import advise
from sftc.compiler.estimate.text import gib, render

ROOT = Path(__file__).resolve().parents[2]


def test_the_documented_report_is_what_is_printed(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    page = ROOT / "docs/estimate.md"
    text = page.read_text(encoding="utf-8")
    recipe, printed = (block.partition("\n")[2] for block in text.split("```")[1:4:2])
    (tmp_path / "recipe.yaml").write_text(recipe)
    found = check_recipe(tmp_path / "recipe.yaml", "recipe.yaml")
    assert found.plan is not None
    assert found.document is not None
    shown = estimate(found.plan)
    report = render(shown, advise(shown, found.document))
    if request.config.getoption("--update-golden"):
        page.write_text(text.replace(f"```text\n{printed}```", f"```text\n{report}```", 1), encoding="utf-8")
    else:
        assert printed == report


@pytest.mark.parametrize("recipe", sorted(ROOT.glob("recipes/*.yaml")), ids=lambda path: path.stem)
def test_the_head_of_a_recipe_says_what_is_estimated(recipe: Path) -> None:
    plan = check_recipe(recipe, recipe.name).plan
    assert plan is not None
    said = re.search(r"^# rank holds ([\d.]+) of ([\d.]+) GiB\.$", recipe.read_text(), re.MULTILINE)
    assert (said is not None) == (plan["launch.hardware"] is not None)
    if said:
        found = estimate(plan)
        assert (said[1], said[2]) == (gib(found.fullest.total), gib(found.limit))
