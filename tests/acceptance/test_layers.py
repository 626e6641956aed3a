"""Bases, overrides, standard input and locks, as a user types them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DERIVED = """\
base: bases/house.yaml
name: derived
train:
  lr: 1e-3
"""
HOUSE = """\
base: ../recipe.yaml
launch:
  environment: {HOUSE: "1"}
"""


@pytest.fixture
def derived(recipe: Path, tmp_path: Path) -> Path:
    """derived.yaml upon bases/house.yaml upon the quickstart."""
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases/house.yaml").write_text(HOUSE)
    (tmp_path / "derived.yaml").write_text(DERIVED)
    return tmp_path / "derived.yaml"


@pytest.fixture
def own_data(tmp_path: Path, repo_root: Path) -> Path:
    """The quickstart with its data, to be changed."""
    shutil.copytree(repo_root / "recipes/quickstart", tmp_path / "recipes/quickstart")
    return tmp_path / "recipes/quickstart"


def sftc(*words: str, cwd: Path, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "sftc.compiler", *words]
    return subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True)


def test_a_chain_of_bases_compiles_with_its_origins(run_line, derived, tmp_path):
    done = run_line("sftc compile derived.yaml -o out")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].endswith("(bases/../recipe.yaml:6:27)")
    values = json.loads((tmp_path / "out/plan.json").read_text())["values"]
    assert values["train"]["lr"] == {"value": 0.001, "origin": {"from": "recipe"}}
    assert values["launch"]["environment"]["origin"] == {"from": "recipe", "file": "bases/house.yaml"}
    assert values["model"]["num_layers"]["origin"] == {"from": "recipe", "file": "bases/../recipe.yaml"}
    assert values["logging"]["run_path"]["value"] == "runs/derived"
    (tmp_path / "recipe.yaml").write_text("# a comment\n" + (tmp_path / "recipe.yaml").read_text())
    assert run_line("sftc check derived.yaml -o out").returncode == 0
    (tmp_path / "bases/house.yaml").write_text(HOUSE.replace('"1"', '"2"'))
    assert run_line("sftc check derived.yaml -o out").returncode == 3


def test_a_mistake_in_a_base_is_shown_in_the_base(run_line, derived, tmp_path):
    (tmp_path / "bases/house.yaml").write_text(HOUSE + "train: {learning_rate: 1e-3}\n")
    done = run_line("sftc validate derived.yaml")
    assert done.returncode == 1
    assert " --> bases/house.yaml:4:9\n" in done.stdout
    assert "4 | train: {learning_rate: 1e-3}\n  |         ^^^^^^^^^^^^^\n" in done.stdout
    (found,) = json.loads(run_line("sftc validate --format json derived.yaml").stdout)
    assert (found["code"], found["span"]["file"]) == ("SFTC201", "bases/house.yaml")


def test_a_recipe_with_a_base_compiles_to_the_same_from_anywhere(derived, tmp_path):
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    options = ["--set", "train.seed=7", "--set", 'launch.environment.MORE="1"']
    one = sftc("compile", "derived.yaml", "-o", "d1", *options, cwd=tmp_path)
    two = sftc("compile", str(derived), "-o", str(tmp_path / "d2"), *options, cwd=elsewhere)
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    compared = subprocess.run(["diff", "-r", "d1", "d2"], cwd=tmp_path, capture_output=True, text=True)
    assert (compared.returncode, compared.stdout) == (0, "")
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "d1").iterdir())


def test_an_override_is_part_of_what_was_compiled(run_line, recipe, tmp_path):
    assert run_line("sftc compile recipe.yaml -o out --set train.lr=1e-3 --set 'data={num_workers: 1}'").returncode == 0
    values = json.loads((tmp_path / "out/plan.json").read_text())["values"]
    assert values["train"]["lr"] == {"value": 0.001, "origin": {"from": "override"}}
    assert values["data"]["num_workers"] == {"value": 1, "origin": {"from": "override"}}
    same = run_line("sftc check recipe.yaml -o out --set data.num_workers=1 --set train.lr=0.001")
    assert (same.returncode, same.stderr) == (0, "")
    without = run_line("sftc check recipe.yaml -o out")
    assert without.returncode == 3
    assert "stale     out/megatron.args" in without.stdout
    assert without.stderr == "out was compiled with --set data.num_workers=1 --set train.lr=0.001\n"


def test_a_mistake_in_an_override_is_shown_in_it(run_line, recipe):
    done = run_line("sftc validate recipe.yaml --set train.lr=1e-3 --set train.wieght_decay=fast --set train.seed=on")
    assert done.returncode == 1
    assert " --> <command-line>:2:13\n" in done.stdout
    assert (
        "2 | --set train.wieght_decay=fast\n  |             ^^^^^^^^^^^^\nhelp: did you mean `weight_decay`?\n"
        in done.stdout
    )
    assert "3 | --set train.seed=on\n  |                  ^^\n" in done.stdout


@pytest.mark.parametrize("override", ["train.lr", "=1", "base=other.yaml"])
def test_what_is_no_override_is_a_bad_command_line(run_line, recipe, override):
    done = run_line(f"sftc validate recipe.yaml --set {override}")
    assert done.returncode == 2
    assert "'--set'" in done.stderr


def test_a_recipe_comes_by_standard_input(derived, tmp_path):
    named = sftc("compile", "derived.yaml", "--show", "megatron.args", cwd=tmp_path)
    piped = sftc("compile", "-", "--show", "megatron.args", cwd=tmp_path, stdin=DERIVED)
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout == named.stdout
    wrong = sftc("validate", "-", cwd=tmp_path, stdin=DERIVED.replace("lr:", "lrr:"))
    assert wrong.returncode == 1
    assert " --> <stdin>:4:3\n" in wrong.stdout
    assert sftc("compile", "-", "-o", "out", cwd=tmp_path, stdin=DERIVED).returncode == 0
    assert sftc("check", "-", "-o", "out", cwd=tmp_path, stdin=DERIVED).returncode == 0
    assert json.loads((tmp_path / "out/origins.json").read_text())["keys"]["train.lr"]["file"] == "<stdin>"


def test_an_artifact_is_printed_and_nothing_written(run_line, recipe, tmp_path):
    run_line("sftc compile recipe.yaml -o out")
    before = sorted(tmp_path.rglob("*"))
    for path in (tmp_path / "out" / name for name in ("plan.json", "launch.sh", "SHA256SUMS")):
        shown = run_line(f"sftc compile recipe.yaml --show {path.name}")
        assert (shown.returncode, shown.stdout, shown.stderr) == (0, path.read_text(), "")
    assert run_line("sftc compile recipe.yaml --plan").stdout == (tmp_path / "out/plan.json").read_text()
    unknown = run_line("sftc compile recipe.yaml --show plan")
    assert unknown.returncode == 2
    assert "no artifact `plan`" in unknown.stderr
    assert "plan.json, megatron.args" in unknown.stderr
    assert run_line("sftc compile recipe.yaml --plan -o out").returncode == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_launch_is_refused_when_what_was_locked_has_changed(run_line, own_data, tmp_path):
    recipe, prepare = "recipes/quickstart/recipe.yaml", f"{sys.executable} -m sftc.runtime prepare out"
    weights = tmp_path / "model"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    (weights / "model.safetensors").write_text("weights")
    text = (own_data / "recipe.yaml").read_text()
    (own_data / "recipe.yaml").write_text(text.replace("init: random", "load: hf:model", 1))
    locked = run_line(f"sftc lock {recipe}")
    assert locked.returncode == 0, locked.stderr
    first = (own_data / "recipe.lock").read_bytes()
    assert str(tmp_path).encode() not in first
    assert "unchanged" in run_line(f"sftc lock {recipe}").stderr
    assert (own_data / "recipe.lock").read_bytes() == first
    compiled = run_line(f"sftc compile {recipe} -o out")
    assert f"locked: a launch verifies its inputs against {recipe[:-5]}.lock" in compiled.stderr
    assert (tmp_path / "out/recipe.lock").read_bytes() == first
    assert "  recipe.lock\n" in (tmp_path / "out/SHA256SUMS").read_text()

    current = run_line(f"sftc lock {recipe} --check")
    assert (current.returncode, current.stdout) == (0, "")
    # Verified, and refused later, for these weights are no model.
    assert "the inputs are as locked: 6 files" in run_line(prepare).stderr

    rows = (own_data / "train.jsonl").read_text()
    (own_data / "train.jsonl").write_text(rows.replace("a", "e", 1))
    (own_data / "valid.jsonl").unlink()
    config = json.loads((own_data / "tokenizer/tokenizer_config.json").read_text())
    config["chat_template"] += " "
    (own_data / "tokenizer/tokenizer_config.json").write_text(json.dumps(config))
    (weights / "model.safetensors").write_text("WEIGHTS")
    refused = run_line(prepare)
    assert refused.returncode == 1
    lines = refused.stderr.splitlines()
    told = [line.split(": ")[0].strip() for line in lines if line.startswith("  ")]
    assert told == [
        "`recipes/quickstart/train.jsonl` has other content",
        "`recipes/quickstart/valid.jsonl` is missing",
        told[2],
        "`model/model.safetensors` has other content",
        "the chat template is another text",
    ]
    assert told[2].startswith("`recipes/quickstart/tokenizer/tokenizer_config.json` has ")
    assert "sftc lock" in lines[-1]
    assert not (tmp_path / ".sftc").exists()
    stale = run_line(f"sftc lock {recipe} --check")
    assert stale.returncode == 3
    assert [line.split(": ")[0] for line in stale.stdout.splitlines()] == told


def test_a_locked_run_is_prepared(run_line, own_data, tmp_path):
    recipe = "recipes/quickstart/recipe.yaml"
    assert run_line(f"sftc lock {recipe}", SFTC_ROOT=str(tmp_path)).returncode == 0
    assert run_line(f"sftc compile {recipe} -o out").returncode == 0
    done = run_line(f"{sys.executable} -m sftc.runtime prepare out")
    assert done.returncode == 0, done.stderr
    assert "the inputs are as locked: 4 files" in done.stderr
    # Removing the lock is a change of what was compiled.
    (own_data / "recipe.lock").unlink()
    assert "leftover  out/recipe.lock" in run_line(f"sftc check {recipe} -o out").stdout
    assert run_line(f"sftc lock {recipe} --check").returncode == 3


def test_a_lock_has_to_be_the_recipe_s(run_line, own_data, tmp_path):
    recipe = "recipes/quickstart/recipe.yaml"
    run_line(f"sftc lock {recipe}")
    other = run_line(f"sftc compile {recipe} -o out --set data.train_data_path=other.jsonl")
    assert other.returncode == 1
    assert "error[SFTC492]" in other.stderr
    assert f"help: `sftc lock {recipe}` writes it anew" in other.stderr
    assert run_line(f"sftc lock {recipe} --check --set data.train_data_path=other.jsonl").returncode == 3
    missing = run_line(f"sftc lock {recipe} --set data.train_data_path=other.jsonl")
    assert missing.returncode == 1
    assert "there is no file `other.jsonl`" in missing.stderr
    (own_data / "recipe.lock").write_text("{}")
    assert "error[SFTC491]" in run_line(f"sftc validate {recipe}").stdout
    # What looks at data alone does not look at the lock.
    assert run_line(f"sftc data stats {recipe} --set name=another").stdout.startswith("another ")
    assert run_line(f"sftc lock {recipe}").returncode == 0
    assert run_line(f"sftc validate {recipe}").returncode == 0
    refused = run_line(f"sftc compile {recipe} -o recipes/quickstart")
    assert refused.returncode == 4
    assert "recipe's own lock" in refused.stderr
    assert run_line("sftc lock -").returncode == 2


def test_the_lock_needs_nothing_but_the_light_install(own_data, tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "sftc.compiler", "lock", "recipes/quickstart/recipe.yaml"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, env=os.environ)
    loaded = {
        line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines() if "import time:" in line
    }
    assert "jinja2" in loaded
    assert not loaded & {
        "torch",
        "megatron",
        "transformers",
        "numpy",
        "tokenizers",
        "datasets",
        "pyarrow",
        "safetensors",
    }
