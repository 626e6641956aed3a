"""The commands, their words and their exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FLAG = "is_instruction_dataset: true # supervised fine-tuning: the loss is taken on the assistant's tokens only"


def edit(recipe: Path, old: str, new: str) -> None:
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new, 1))


def test_compile_says_what_it_wrote_and_ends_with_the_flag(run_line, recipe):
    done = run_line("sftc compile recipe.yaml -o build/quickstart")
    assert (done.returncode, done.stdout) == (0, "")
    lines = done.stderr.splitlines()
    assert "  wrote      build/quickstart/plan.json" in lines
    assert lines[-2] == "start it with: bash build/quickstart/launch.sh"
    assert lines[-1] == (
        "task: sft, loss on the assistant's tokens only, because `task.is_instruction_dataset: true` (recipe.yaml:6:27)"
    )
    again = run_line("sftc compile recipe.yaml -o build/quickstart")
    assert again.returncode == 0
    assert "wrote" not in again.stderr


def test_validate_reports_every_error_of_every_recipe_and_writes_nothing(run_line, recipe, tmp_path):
    edit(recipe, "lr: 2.0e-3", "learning_rate: 2.0e-3")
    edit(recipe, "num_layers: 2", "num_layers: two")
    (tmp_path / "empty.yaml").write_text("")
    before = sorted(tmp_path.iterdir())
    done = run_line("sftc validate --format concise recipe.yaml empty.yaml missing.yaml")
    assert done.returncode == 1
    places = [line.split(": ")[0] for line in done.stdout.splitlines()]
    assert [place for place in places if place.startswith("recipe.yaml")] == sorted(
        (place for place in places if place.startswith("recipe.yaml")), key=lambda place: int(place.split(":")[1])
    )
    assert "`learning_rate`" in done.stdout
    assert "num_layers" in done.stdout
    assert "empty.yaml" in done.stdout
    assert "missing.yaml" in done.stdout
    assert sorted(tmp_path.iterdir()) == before


def test_validate_of_a_good_recipe_names_the_task(run_line, recipe):
    done = run_line("sftc validate recipe.yaml")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("recipe.yaml: task: sft")


def test_json_diagnostics_are_json(run_line, recipe):
    edit(recipe, "lr: 2.0e-3", "learning_rate: 2.0e-3")
    done = run_line("sftc validate --format json recipe.yaml")
    assert {entry["code"] for entry in json.loads(done.stdout)} == {"SFTC201"}
    edit(recipe, "learning_rate", "lr")
    assert json.loads(run_line("sftc validate --format json recipe.yaml").stdout) == []


@pytest.mark.parametrize("command", ["validate recipe.yaml", "compile recipe.yaml -o out", "check recipe.yaml -o out"])
def test_a_document_stands_alone_on_stdout(run_line, recipe, command):
    for style in ("json", "sarif"):
        clean = json.loads(run_line(f"sftc {command} --format {style}").stdout)
        assert (clean if style == "json" else clean["runs"][0]["results"]) == []
    edit(recipe, "lr: 2.0e-3", "learning_rate: 2.0e-3")
    done = run_line(f"sftc {command} --format sarif")
    assert [result["ruleId"] for result in json.loads(done.stdout)["runs"][0]["results"]] == ["SFTC201"]
    line = run_line(f"sftc {command} --format github")
    shown = line.stdout if command.startswith("validate") else line.stderr
    assert shown.startswith("::error file=recipe.yaml,line=33,endLine=33,col=3,endColumn=16,title=SFTC201::unknown key")


def test_what_compile_refuses_is_told_in_the_format_asked_for(run_line, recipe, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/launch.sh").write_text("somebody else's")
    done = run_line("sftc compile recipe.yaml -o out --format json")
    assert done.returncode == 4
    assert [item["code"] for item in json.loads(done.stdout)] == ["SFTC601"]
    assert run_line("sftc compile recipe.yaml -o out --format github").stderr.startswith("::error title=SFTC601::")
    blocked = run_line("sftc compile recipe.yaml -o recipe.yaml --format json")
    assert [item["code"] for item in json.loads(blocked.stdout)] == ["SFTC603"]


def test_warnings_pass_unless_strict(run_line, recipe):
    edit(recipe, "save_interval: 50", "save_interval: 100000")
    assert run_line("sftc validate recipe.yaml").returncode == 0
    strict = run_line("sftc compile recipe.yaml -o out --strict")
    assert strict.returncode == 1
    assert "SFTC443" in strict.stderr
    assert not (recipe.parent / "out").exists()


def test_an_error_writes_nothing(run_line, recipe):
    edit(recipe, "vocab_size: ", "vocabulary: ")
    done = run_line("sftc compile recipe.yaml -o out")
    assert done.returncode == 1
    assert "error[SFTC201]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (recipe.parent / "out").exists()


@pytest.mark.parametrize(
    "line", ["sftc", "sftc compile recipe.yaml", "sftc nonsense", "sftc validate --format nope recipe.yaml"]
)
def test_a_bad_command_line_exits_2(run_line, recipe, line):
    done = run_line(line)
    assert done.returncode == 2
    assert "Usage:" in done.stderr + done.stdout


def test_check_tells_the_kinds_of_drift_apart(run_line, recipe, tmp_path):
    check = "sftc check recipe.yaml -o out"
    missing = run_line(check)
    assert missing.returncode == 3
    assert {line.split()[0] for line in missing.stdout.splitlines()} == {"missing"}
    run_line("sftc compile recipe.yaml -o out")
    clean = run_line(check)
    assert clean.returncode == 0
    assert {line.split()[0] for line in clean.stdout.splitlines()} == {"clean"}

    recipe.write_text(recipe.read_text().replace("task:", "# a comment moves every line\ntask:"))
    assert run_line(check).returncode == 0
    compiled = run_line("sftc compile recipe.yaml -o out")
    assert [line.split()[1] for line in compiled.stderr.splitlines() if "wrote" in line] == ["out/origins.json"]

    edit(recipe, "lr: 2.0e-3", "lr: 1.0e-3")
    stale = run_line(check)
    assert stale.returncode == 3
    assert "stale     out/megatron.args" in stale.stdout.splitlines()
    assert "clean     out/launch.sh" in stale.stdout.splitlines()
    edit(recipe, "lr: 1.0e-3", "lr: 2.0e-3")
    step = tmp_path / "out/forward_step.py"
    step.write_text(step.read_text() + "\n")
    edited = run_line(check)
    assert edited.returncode == 3
    assert "edited    out/forward_step.py" in edited.stdout.splitlines()


def test_edits_are_overwritten_only_by_force_and_foreign_files_never(run_line, recipe, tmp_path):
    out = tmp_path / "out"
    run_line("sftc compile recipe.yaml -o out")
    (out / "launch.sh").write_text("edited")
    refused = run_line("sftc compile recipe.yaml -o out")
    assert refused.returncode == 4
    assert "out/launch.sh was edited" in refused.stderr
    assert (out / "launch.sh").read_text() == "edited"
    assert run_line("sftc compile recipe.yaml -o out --force").returncode == 0
    assert (out / "launch.sh").read_text() != "edited"

    for path in out.iterdir():
        path.unlink()
    (out / "launch.sh").write_text("somebody else's")
    for line in ("sftc compile recipe.yaml -o out", "sftc compile recipe.yaml -o out --force"):
        foreign = run_line(line)
        assert foreign.returncode == 4
        assert "out/launch.sh was not written by sftc" in foreign.stderr
        assert [path.name for path in out.iterdir()] == ["launch.sh"]


def test_an_output_that_cannot_be_written_is_told(run_line, recipe, tmp_path):
    (tmp_path / "file").write_text("")
    done = run_line("sftc compile recipe.yaml -o file/build")
    assert done.returncode == 1
    assert "SFTC603" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["compile", "check"])
def test_an_output_that_no_system_takes_is_told(run_line, recipe, command):
    done = run_line(f"sftc {command} recipe.yaml -o {'x' * 300}")
    assert done.returncode == 1
    assert "error[SFTC603]" in done.stderr


def test_an_output_without_a_name_is_not_the_current_directory(run_line, recipe, tmp_path):
    before = sorted(tmp_path.iterdir())
    done = run_line("sftc compile recipe.yaml -o ''")
    assert done.returncode == 2
    assert "-o ." in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_a_download_with_digests_of_its_own_is_refused_and_kept(run_line, recipe, tmp_path):
    (tmp_path / "model.bin").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (tmp_path / "SHA256SUMS").write_text(f"{empty}  model.bin\n")
    done = run_line("sftc compile recipe.yaml -o . --force")
    assert done.returncode == 4
    assert (tmp_path / "model.bin").exists()


def test_the_recipe_s_own_template_never_becomes_an_artifact(run_line, recipe, tmp_path):
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    edit(recipe, "tokenizer:", "tokenizer:\n  chat_template: chat_template.jinja")
    assert run_line("sftc compile recipe.yaml -o .").returncode == 4
    assert run_line("sftc compile recipe.yaml -o build").returncode == 0
    assert run_line("sftc compile recipe.yaml -o build").returncode == 0


def test_a_recipe_whose_name_is_no_text_compiles(recipe, tmp_path):
    odd = os.fsencode(tmp_path) + b"/\xff.yaml"
    recipe.rename(os.fsdecode(odd))
    command = [sys.executable, "-m", "sftc.compiler", "compile", odd, "-o", tmp_path / "build"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0


def test_artifacts_are_a_function_of_the_recipe_alone(run_line, recipe, tmp_path):
    """Two processes that differ in everything a machine may differ in write the same tree, modes included."""
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    for home in ("h1", "h2"):
        (tmp_path / home).mkdir()
    one = ["env", "PYTHONHASHSEED=1", "TZ=UTC", "LC_ALL=C", f"HOME={tmp_path / 'h1'}"]
    two = ["env", "PYTHONHASHSEED=77", "TZ=Asia/Kolkata", "LC_ALL=C.UTF-8", f"HOME={tmp_path / 'h2'}"]
    sftc = [sys.executable, "-m", "sftc.compiler", "compile"]
    subprocess.run([*one, *sftc, "recipe.yaml", "-o", "d1"], cwd=tmp_path, check=True, umask=0o022, capture_output=True)
    subprocess.run(
        [*two, *sftc, recipe, "-o", tmp_path / "d2"], cwd=elsewhere, check=True, umask=0o077, capture_output=True
    )
    compared = subprocess.run(["diff", "-r", "d1", "d2"], cwd=tmp_path, capture_output=True, text=True)
    assert (compared.returncode, compared.stdout) == (0, "")
    modes = [{path.name: path.stat().st_mode for path in (tmp_path / d).iterdir()} for d in ("d1", "d2")]
    assert modes[0] == modes[1]
    assert len(modes[0]) >= 8


def test_one_template_byte_changes_one_dependency(tmp_path, repo_root, monkeypatch):
    from sftc.compiler import manifest
    from sftc.compiler.compile import artifacts, check_recipe

    checked = check_recipe(repo_root / "recipes/quickstart/recipe.yaml", "recipe.yaml")

    def dependencies() -> dict[str, str]:
        content = next(artifact.content for artifact in artifacts(checked) if artifact.path == "manifest.json")
        entries = json.loads(content)["predicate"]["buildDefinition"]["resolvedDependencies"]
        return {entry["name"]: entry["digest"]["sha256"] for entry in entries}

    before, original = dependencies(), manifest.template_text
    monkeypatch.setattr(manifest, "template_text", lambda name: original(name) + (" " if name == "launch.sh" else ""))
    after = dependencies()
    assert [name for name in before if before[name] != after[name]] == ["templates/launch.sh.j2"]


def test_compiling_loads_nothing_heavy_and_is_quick(recipe, tmp_path):
    """At most twice what importing the four libraries takes: the best of several runs each, in this one test."""
    import time

    libraries = [sys.executable, "-c", "import click, jinja2, jsonschema, ruamel.yaml"]
    compile_it = [sys.executable, "-m", "sftc.compiler", "compile", "recipe.yaml", "-o", "out"]
    validate_it = [sys.executable, "-m", "sftc.compiler", "validate", "recipe.yaml"]
    times: dict[str, list[float]] = {}
    # The libraries' bytecode lies beside them since they were installed: ours may, too.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    ratios = {"compile": float("inf"), "validate": float("inf")}
    # In turns, so that a busy moment of the machine meets all of them, and more of them on a machine that stays busy.
    for count in range(40):
        if count >= 7 and max(ratios.values()) <= 2:
            break
        for command in (libraries, compile_it, validate_it):
            start = time.perf_counter()
            subprocess.run(command, cwd=tmp_path, env=variables, check=True, capture_output=True)
            times.setdefault(command[3] if len(command) > 3 else "import", []).append(time.perf_counter() - start)
        ratios = {name: min(times[name]) / min(times["import"]) for name in ratios}
    for name, ratio in ratios.items():
        print(f"{name} takes {ratio:.2f} times the import of its libraries")
        assert ratio <= 2, name
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", *compile_it[1:]], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stderr
    modules = {line.rpartition("|")[2].strip().split(".")[0] for line in loaded.splitlines() if "import time:" in line}
    assert "ruamel" in modules
    assert not modules & {"torch", "megatron", "transformers", "numpy", "tokenizers", "socket", "asyncio", "requests"}


TRUTH = {
    # (is_instruction_dataset, is_sft): the kind, or the code of the error
    (None, None): "SFTC301",
    (None, "true"): "sft",
    (None, "false"): "pretrain",
    ("true", None): "sft",
    ("true", "true"): "sft",
    ("true", "false"): "SFTC302",
    ("false", None): "pretrain",
    ("false", "true"): "SFTC302",
    ("false", "false"): "pretrain",
}


@pytest.mark.parametrize(("cell", "expected"), TRUTH.items(), ids=str)
def test_the_nine_cells_of_the_flag(run_line, recipe, cell, expected):
    lines = [
        f"{name}: {value}" for name, value in zip(("is_instruction_dataset", "is_sft"), cell, strict=True) if value
    ]
    edit(recipe, f"task:\n  {FLAG}", "\n  ".join(["task:", *lines]) if lines else "")
    if expected == "pretrain":  # which has no answers
        text = recipe.read_text()
        edit(recipe, text[text.index("  generate:") : text.index("launch:")], "")
    done = run_line("sftc compile recipe.yaml -o out")
    if expected.startswith("SFTC"):
        assert done.returncode == 1
        assert f"error[{expected}]" in done.stderr
    else:
        assert done.returncode == 0
        plan = json.loads((recipe.parent / "out/plan.json").read_text())
        assert plan["task"]["kind"] == expected
        assert ("warning[SFTC305]" in done.stderr) == (expected == "pretrain")
        assert done.stderr.splitlines()[-1].startswith(f"task: {expected}")


def test_finetune_lr_alone_decides_nothing_and_is_told_its_name(run_line, recipe):
    edit(recipe, f"task:\n  {FLAG}", "")
    edit(recipe, "lr: 2.0e-3", "finetune_lr: 2.0e-3")
    done = run_line("sftc validate recipe.yaml")
    assert done.returncode == 1
    assert "error[SFTC301]" in done.stdout
    assert "unknown key `finetune_lr`" in done.stdout
    assert "`lr`" in done.stdout


def test_a_bug_is_told_apart_from_a_mistake(recipe, tmp_path):
    broken = "from sftc.compiler.cli import main, validate as v; v.check_recipe = lambda *_: 1 / 0; main()"
    done = subprocess.run(
        [sys.executable, "-c", broken, "validate", "recipe.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 70
    assert done.stderr.startswith("a bug in sftc 0.1.0")
    assert "ZeroDivisionError" in done.stderr


def test_a_closed_pipe_is_no_bug(recipe, tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "sftc.compiler", "validate", "--format", "json", "recipe.yaml"],
        cwd=tmp_path,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    assert "Traceback" not in done.stderr
