"""The commands around a compile, as a user types them."""

import json
import os
import re
import resource
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from sftc.compiler.cli.init import presets
from sftc.compiler.compile import check_recipe
from sftc.compiler.render import render_recipe
from sftc.compiler.schemas import schema_text


def edit(recipe, old, new):
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        ("SFTC201", "# SFTC201: an unknown key"),
        ("sftc201", "# SFTC201: an unknown key"),
        ("train.lr", "train.lr: Learning rate"),
        ("--lr", "--lr: an option of Megatron-Core"),
        ("--lr_warmup_iters", "--lr-warmup-iters: an option"),
        ("--recipe recipe.yaml --lr", "\n  --lr 0.002\n    train.lr = 0.002\n      recipe.yaml:33:7\n"),
        ("lr --recipe recipe.yaml", "in recipe.yaml:\n  train.lr = 0.002\n    recipe.yaml:33:7\n"),
        ("recipe.yaml:33", "in recipe.yaml:\n  train.lr = 0.002\n"),
        ("out/megatron.args:2", "out/megatron.args:2: --num-layers 2  # model.num_layers\n  model.num_layers = 2\n"),
        ("out/launch.sh:2", 'name = "quickstart"\n      recipe.yaml:2:7\n'),
    ],
)
def test_explain(run_line, recipe, subject, told):
    run_line("sftc compile recipe.yaml -o out")
    done = run_line(f"sftc explain {subject}")
    assert (done.returncode, done.stderr) == (0, "")
    assert told in done.stdout


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        ("SFTC299", "there is no code `SFTC299`"),
        ("train.lrr", "there is no key `train.lrr`; did you mean `train.lr`?"),
        ("--lr-warmup-iter", "did you mean `--lr-warmup-iters`?"),
        ("out/megatron.args:999", "has no line 999"),
        ("nowhere/megatron.args:1", "there is no file"),
        ("other/notes.txt:1", "other is no build dir"),
        ("recipe.yaml:1", "no key stands on line 1"),
    ],
)
def test_explain_of_what_is_not_there(run_line, recipe, tmp_path, subject, told):
    run_line("sftc compile recipe.yaml -o out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("text\n")
    done = run_line(f"sftc explain {subject}")
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


def test_explain_says_that_a_file_was_edited(run_line, recipe, tmp_path):
    run_line("sftc compile recipe.yaml -o out")
    edit(tmp_path / "out/megatron.args", "--lr 0.002", "--lr 0.1")
    assert "was edited" in run_line("sftc explain out/megatron.args:3").stderr


def test_diff_of_recipes_and_build_dirs(run_line, recipe, tmp_path):
    run_line("sftc compile recipe.yaml -o out")
    same = run_line("sftc diff out recipe.yaml --exit-code")
    assert (same.returncode, same.stdout) == (0, "")
    edit(recipe, "lr: 2.0e-3", "lr: 1.0e-3")
    changed = run_line("sftc diff out recipe.yaml --exit-code --plan")
    assert changed.returncode == 3
    assert changed.stdout == "train.lr\n  - 0.002  (recipe.yaml:33:7)\n  + 0.001  (recipe.yaml:33:7)\n"
    assert run_line("sftc diff out recipe.yaml").returncode == 0
    document = json.loads(run_line("sftc diff out recipe.yaml --format json").stdout)
    assert document["changes"]["/values/train/lr"]["new"]["value"] == 0.001
    assert "\x1b" not in changed.stdout
    edit(recipe, "lr: 1.0e-3", "lr: fast")
    broken = run_line("sftc diff out recipe.yaml")
    assert (broken.returncode, broken.stdout) == (1, "")
    assert "error[SFTC202]" in broken.stderr
    assert run_line(f"sftc diff out {tmp_path}").returncode == 2


def test_schema_prints_the_file(run_line):
    assert run_line("sftc schema").stdout == schema_text("recipe.schema.json")
    for name in ("recipe", "plan", "manifest", "lock", "diagnostics"):
        assert json.loads(run_line(f"sftc schema {name}").stdout)["title"].startswith("sftc")
        assert f"\n{name} " in "\n" + run_line("sftc schema --list").stdout
    assert run_line("sftc schema nonsense").returncode == 2


def test_init_prints_a_recipe_that_validates_and_overwrites_nothing(run_line, tmp_path):
    written = run_line("sftc init -o recipe.yaml")
    assert written.returncode == 0
    assert (tmp_path / "recipe.yaml").read_text() == run_line("sftc init").stdout
    checked = run_line("sftc validate --strict --format json recipe.yaml")
    assert (checked.returncode, json.loads(checked.stdout)) == (0, [])
    (tmp_path / "recipe.yaml").write_text("mine")
    assert run_line("sftc init -o recipe.yaml").returncode == 4
    assert (tmp_path / "recipe.yaml").read_text() == "mine"
    assert run_line("sftc init -o no/such/folder/recipe.yaml").returncode == 1
    unknown = run_line("sftc init --preset no-such-model")
    assert unknown.returncode == 2
    assert "there is no preset `no-such-model`" in unknown.stderr


def test_a_preset_stands_for_the_shape(tmp_path):
    model = YAML(typ="safe").load(render_recipe("my-run", "llama-3.2-1b"))["model"]
    assert model["preset"] == "llama-3.2-1b"
    assert not {"num_layers", "hidden_size", "vocab_size"} & set(model)
    for name in presets():
        (tmp_path / "recipe.yaml").write_text(render_recipe(name, name))
        assert check_recipe(tmp_path / "recipe.yaml", "recipe.yaml").diagnostics == [], name


def test_migrate_shows_and_writes(run_line, recipe):
    edit(recipe, "lr: 2.0e-3", "learning_rate: 2.0e-3")
    before = recipe.read_bytes()
    shown = run_line("sftc migrate recipe.yaml")
    assert shown.returncode == 0
    assert re.search(r"\n-  learning_rate: 2.0e-3.*\n\+  lr: 2.0e-3", shown.stdout)
    assert recipe.read_bytes() == before
    recipe.chmod(0o600)
    recipe.write_bytes(before.replace(b"\n", b"\r\n"))
    written = run_line("sftc migrate recipe.yaml --write")
    assert (written.returncode, written.stdout) == (0, "")
    assert "  train.learning_rate -> train.lr\n" in written.stderr
    assert recipe.read_bytes() == before.replace(b"learning_rate", b"lr").replace(b"\n", b"\r\n")
    assert recipe.stat().st_mode & 0o777 == 0o600
    again = run_line("sftc migrate recipe.yaml --write")
    assert "nothing to migrate" in again.stderr
    edit(recipe, "seq_length", "seq_lenght")
    left = run_line("sftc migrate recipe.yaml --write")
    assert left.returncode == 1
    assert "did you mean `seq_length`?" in left.stderr


def test_completion_works_in_a_real_bash(tmp_path):
    """The script as bash runs it, with `sftc` a program on PATH."""
    program = tmp_path / "sftc"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m sftc.compiler "$@"\n')
    program.chmod(0o755)
    script = """
      source <(sftc completion bash)
      complete -p sftc
      try() {
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        _sftc_completion sftc
        echo "$*: ${COMPREPLY[*]}"
      }
      try sftc expl
      try sftc explain train.lr_w
      try sftc explain SFTC30
      try sftc explain --lr-w
      try sftc validate --format s
      try sftc schema pl
    """
    env = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "complete -o nosort -F _sftc_completion sftc",
        "sftc expl: explain",
        "sftc explain train.lr_w: train.lr_warmup_iters train.lr_warmup_fraction",
        "sftc explain SFTC30: SFTC301 SFTC302 SFTC303 SFTC304 SFTC305",
        "sftc explain --lr-w: --lr-warmup-fraction --lr-warmup-init --lr-warmup-iters --lr-warmup-samples "
        "--lr-wsd-decay-iters --lr-wsd-decay-samples --lr-wsd-decay-style",
        "sftc validate --format s: sarif",
        "sftc schema pl: plan",
    ]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(run_line, shell):
    done = run_line(f"sftc completion {shell}")
    assert done.returncode == 0
    assert f"_SFTC_COMPLETE={shell}_complete" in done.stdout


def test_the_pre_commit_hook_runs_validate_on_recipes(run_line, recipe, repo_root):
    (hook,) = YAML(typ="safe").load((repo_root / ".pre-commit-hooks.yaml").read_text())
    assert hook["id"] == "sftc-validate"
    assert re.search(hook["files"], "recipes/quickstart/recipe.yaml")
    assert not re.search(hook["files"], "tests/errors/tab.yaml")
    assert hook["entry"].split()[0] in tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]["scripts"]
    assert run_line(f"{hook['entry']} recipe.yaml").returncode == 0
    edit(recipe, "lr: 2.0e-3", "learning_rate: 2.0e-3")
    assert run_line(f"{hook['entry']} recipe.yaml").returncode == 1


def test_the_lines_of_the_ci_page_run(run_line, recipe, repo_root, tmp_path):
    text = (repo_root / "docs/ci.md").read_text()
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        YAML(typ="safe").load(block)
    lines = re.findall(r"sftc (?:validate|check|diff) .*", "\n".join(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)))
    lines = [line for line in lines if "recipes/" in line]
    assert len(lines) == 4
    (tmp_path / "recipes").mkdir()
    for path in ("recipes/my-run.yaml", "before.yaml"):
        (tmp_path / path).write_text(recipe.read_text())
    run_line("sftc compile recipes/my-run.yaml -o build/my-run")
    for line in lines:
        words = line.partition(" > ")[0].replace("*", "my-run")
        assert run_line(words).returncode == 0, line


def test_a_thousand_recipes_are_validated_in_seconds(repo_root: Path, tmp_path: Path):
    """In one call, within 60 s of one core: with two cores the rest of the machine may be busy."""
    sources = [*repo_root.glob("recipes/**/*.yaml"), *repo_root.glob("tests/errors/rule-*.yaml")]
    for number in range(1000):
        (tmp_path / f"{number:04}.yaml").write_bytes(sources[number % len(sources)].read_bytes())
    files = sorted(path.name for path in tmp_path.iterdir())
    used, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "sftc.compiler", "validate", "--format", "concise", *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    print(f"1,000 recipes: {seconds:.1f} s of one core, {wall:.1f} s on the clock")
    assert done.returncode == 1
    bad = {name for number, name in enumerate(files) if sources[number % len(sources)].parent.name == "errors"}
    assert set(re.findall(r"\d{4}\.yaml", done.stdout)) >= bad
    assert len(bad) > 500
    assert seconds < 60
