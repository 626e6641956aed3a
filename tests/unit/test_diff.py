"""What differs between two recipes or build dirs, and how it is said."""

import json
import re
from pathlib import Path

import pytest

from sftc.compiler.built import Built, NotBuilt, built_of, read_built
from sftc.compiler.compile import artifacts, check_recipe
from sftc.compiler.diff import compare
from sftc.compiler.diff_text import FORMATS

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = (ROOT / "recipes/quickstart/recipe.yaml").read_text(encoding="utf-8")


def built(folder: Path, name: str, *edits: tuple[str, str]) -> Built:
    text = QUICKSTART
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    path = folder / name
    path.write_text(text)
    checked = check_recipe(path, name)
    assert checked.plan is not None, checked.diagnostics
    return built_of(artifacts(checked), name)


def test_a_comment_is_no_difference(tmp_path: Path) -> None:
    found = compare(built(tmp_path, "a.yaml"), built(tmp_path, "b.yaml", ("task:", "# moved\ntask:")))
    assert not found
    assert FORMATS["text"](found, False) == ""
    assert "compile to the same files" in FORMATS["markdown"](found, False)
    assert json.loads(FORMATS["json"](found, False))["changes"] == {}


def test_values_come_first_each_with_its_reason(tmp_path: Path) -> None:
    new = built(tmp_path, "b.yaml", ("lr: 2.0e-3", "lr: 1.0e-3"), ("  save_interval: 50", "  ckpt_format: torch_dist"))
    text = FORMATS["text"](compare(built(tmp_path, "a.yaml"), new), False)
    assert text.startswith("train.lr\n  - 0.002  (recipe.yaml:33:7)\n".replace("recipe", "a"))
    assert "\n  + 0.001  (b.yaml:33:7)\n" in text
    assert "\ncheckpoint.save_interval\n  - 50  (a.yaml:39:18)\n  + 300  (derived: once, after" in text
    # The same value by another reason: it would not follow a change of the default.
    assert '\ncheckpoint.ckpt_format\n  - "torch_dist"  (default)\n  + "torch_dist"  (b.yaml:39:16)\n' in text
    assert "\n--- a.yaml/megatron.args\n+++ b.yaml/megatron.args\n" in text
    assert "\n---lr 0.002  # train.lr\n+--lr 0.001  # train.lr\n" in text
    assert "plan.json" not in text
    assert "SHA256SUMS" not in text


def test_what_sftc_decides_is_told_where_no_value_explains_it(tmp_path: Path) -> None:
    rows = next(line for line in QUICKSTART.splitlines() if "valid_data_path" in line)
    section = QUICKSTART[QUICKSTART.index("eval:\n") : QUICKSTART.index("launch:\n")]
    new = built(tmp_path, "b.yaml", (rows, ""), (section, ""))
    changes = {change.pointer: change for change in compare(built(tmp_path, "a.yaml"), new).changes}
    assert changes["/values/data/valid_data_path"].new is not None
    assert changes["/arguments/--eval-iters"].old is None
    # Nothing is told twice.
    assert "/arguments/--lr" not in changes
    labels = [change.label for change in changes.values()]
    assert len(labels) == len(set(labels))


def test_an_artifact_of_one_side_only_is_shown_whole(tmp_path: Path) -> None:
    old, new = (read_built(ROOT / "tests/golden/expected" / name, name) for name in ("quickstart", "slurm-3d"))
    found = compare(old, new)
    assert found.texts["launch.sbatch"].startswith("--- /dev/null\n+++ slurm-3d/launch.sbatch\n")
    assert "+++ /dev/null" in found.texts["megatron.cpu.args"]
    assert compare(old, new, plan_only=True).texts == {}
    pointers = {change.pointer for change in found.changes}
    assert {"/name", "/values/megatron/args", "/environment/CUDA_DEVICE_MAX_CONNECTIONS"} <= pointers
    assert "/environment/NCCL_DEBUG" not in pointers


def test_json_is_keyed_by_pointers_that_lead_to_the_value(tmp_path: Path) -> None:
    old, new = (read_built(ROOT / "tests/golden/expected" / name, name) for name in ("quickstart", "packed"))
    document = json.loads(FORMATS["json"](compare(old, new), False))
    for pointer, change in document["changes"].items():
        if pointer.startswith("/values/"):
            for side, plan in (("old", old.plan), ("new", new.plan)):
                node = plan
                for part in pointer.split("/")[1:]:
                    node = node[part]
                assert change[side]["value"] == node["value"]
                assert change[side]["origin"] == node["origin"]
    assert set(document["artifacts"]) >= {"megatron.args", "forward_step.py"}


def test_markdown_holds_what_it_shows(tmp_path: Path) -> None:
    name = "description: "
    line = next(line for line in QUICKSTART.splitlines() if line.startswith(name))
    new = built(tmp_path, "b.yaml", (line, "description: 'a | b ` c ```` d'"), ("lr: 2.0e-3", "lr: 1.0e-3"))
    text = FORMATS["markdown"](compare(built(tmp_path, "a.yaml"), new), False)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}
    assert text.count("<details>") == text.count("</details>") >= 1
    opened = [line for line in text.splitlines() if re.match("`{3,}", line)]
    assert len(opened) % 2 == 0


def test_the_reasons_of_a_mapping_are_those_of_its_entries(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(QUICKSTART.replace("launch:\n", "launch:\n  environment: {A: one, B: two}\n"))
    (tmp_path / "run.yaml").write_text("base: base.yaml\nname: run\nlaunch: {environment: {B: three}}\n")
    sides = []
    for overrides in ((), ("launch.environment.C=four",)):
        checked = check_recipe(tmp_path / "run.yaml", "run.yaml", overrides)
        assert checked.plan is not None, checked.diagnostics
        sides.append(built_of(artifacts(checked), "run.yaml"))
    found = compare(sides[0], sides[1], plan_only=True)
    assert FORMATS["text"](found, False) == (
        "launch.environment\n"
        '  - {"A": "one", "B": "three"}  (A: base.yaml, B: the recipe)\n'
        '  + {"A": "one", "B": "three", "C": "four"}  (A: base.yaml, B: the recipe, C: --set)\n'
    )
    assert "<br>A: base.yaml, B: the recipe |" in FORMATS["markdown"](found, False)
    new = json.loads(FORMATS["json"](found, False))["changes"]["/values/launch/environment"]["new"]
    assert new["origin"]["entries"]["C"] == {"from": "override"}


def test_colour_changes_nothing_but_colour(tmp_path: Path) -> None:
    found = compare(built(tmp_path, "a.yaml"), built(tmp_path, "b.yaml", ("lr: 2.0e-3", "lr: 1.0e-3")))
    plain, painted = (FORMATS["text"](found, colour) for colour in (False, True))
    assert plain != painted
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == plain


def test_what_is_no_build_dir_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotBuilt, match="is no build dir"):
        read_built(tmp_path, "d")
    for file in (ROOT / "tests/golden/expected/quickstart").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(NotBuilt, match="plan in d cannot be read"):
        read_built(tmp_path, "d")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(NotBuilt, match="no manifest"):
        read_built(tmp_path, "d")
