"""Codes, keys and options in words, and every line of every golden build dir down to where it comes from."""

import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from sftc.compiler.built import built_of, read_built
from sftc.compiler.codes import CODES
from sftc.compiler.compile import artifacts, check_recipe
from sftc.compiler.explain import Unknown, completions, explain_code, explain_key, explain_option, find_key
from sftc.compiler.options import option_table
from sftc.compiler.origins import ARGUMENT_FILES
from sftc.compiler.schemas import leaves
from sftc.compiler.template_lines import match_lines
from sftc.compiler.trace import TEMPLATES, Step, trace_line

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = sorted((ROOT / "tests/golden/expected").iterdir())
KNOWN_ENDS = {"recipe", "override", "preset", "config.json", "default", "derived", "sftc"}


def steps(step: Step) -> list[Step]:
    return [step, *(inner for below in step.below for inner in steps(below))]


def recipe_of(golden: Path) -> Path:
    candidates = [*ROOT.glob("recipes/**/*.yaml"), *ROOT.glob("tests/golden/cases/*.yaml")]
    return next(path for path in candidates if golden.name in (path.stem, path.parent.name))


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_every_argument_ends_at_the_recipe_a_preset_a_default_or_a_named_derivation(golden: Path) -> None:
    built, recipe = read_built(golden, golden.name), recipe_of(golden)
    arguments = 0
    for path in ARGUMENT_FILES:
        for number, line in enumerate(built.texts.get(path, "").splitlines(), 1):
            if not line or line.startswith("# "):
                continue
            step = trace_line(built, path, number)
            assert step.below, line
            assert set(step.ends()) <= KNOWN_ENDS, line
            assert all(inner.below or inner.end for inner in steps(step)), line
            for key, place in pairwise(steps(step)):
                if place.end == "recipe":
                    file, row, column = place.text.rsplit(":", 2)
                    said = (recipe.parent / file).read_text(encoding="utf-8").splitlines()[int(row) - 1]
                    name = key.text.partition(" = ")[0].rpartition(".")[2]
                    assert name in said[: int(column) - 1], (line, place.text)
            arguments += 1
    assert arguments == len(built.plan["arguments"]) + len(built.plan["cpu_arguments"])


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_every_other_line_has_an_answer(golden: Path) -> None:
    built = read_built(golden, golden.name)
    for path, text in built.texts.items():
        for number, line in enumerate(text.splitlines(), 1):
            ends = set(trace_line(built, path, number).ends())
            assert ends, (path, number, line)
            assert ends <= {*KNOWN_ENDS, "template"}, (path, number, line)


def test_lines_of_a_script_say_which_values_they_show() -> None:
    built = read_built(ROOT / "tests/golden/expected/slurm-3d", "d")

    def keys(path: str, start: str) -> set[str]:
        lines = built.texts[path].splitlines()
        number = next(number for number, line in enumerate(lines, 1) if line.strip().startswith(start))
        return {step.text.partition(" = ")[0] for step in steps(trace_line(built, path, number))}

    assert "launch.nnodes" in keys("launch.sh", "--nnodes=2")
    assert "launch.environment.NCCL_DEBUG" in keys("launch.sh", "NCCL_DEBUG=WARN")
    assert "megatron.path" in keys("launch.sh", "PYTHONPATH=")
    assert "launch.nnodes" in keys("launch.sh", "[[ ${1-} == --dry-run || -n ${MASTER_ADDR")
    assert "launch.slurm.account" in keys("launch.sbatch", "#SBATCH --account")
    assert "name" in keys("launch.sbatch", "#SBATCH --job-name")
    assert "train.seq_length" in keys("forward_step.py", "SEQ_LENGTH =")
    assert "megatron.args.manual_gc_interval" in keys("megatron.args", "--manual-gc-interval")


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_template_lines_are_found_in_their_order(golden: Path) -> None:
    """Loops go back within themselves only, and they are short."""
    for name in TEMPLATES:
        if (golden / name).exists():
            found = match_lines(name, (golden / name).read_text(encoding="utf-8"))
            assert None not in found
            numbers = [line.number for line in found if line]
            back = [(a, b) for a, b in pairwise(numbers) if b < a]
            assert back == [], (golden.name, name)


def test_a_line_written_by_hand_is_called_that(tmp_path: Path) -> None:
    for file in (ROOT / "tests/golden/expected/quickstart").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    arguments = (tmp_path / "megatron.args").read_text()
    (tmp_path / "megatron.args").write_text(f"{arguments}--eod-mask-loss\n")
    built = read_built(tmp_path, "d")
    assert built.is_edited("megatron.args")
    assert not built.is_edited("plan.json")
    last = trace_line(built, "megatron.args", len(arguments.splitlines()) + 1)
    assert list(last.ends()) == ["hand"]
    with pytest.raises(IndexError):
        trace_line(built, "megatron.args", 1000)


def test_every_code_and_key_and_option_is_explained() -> None:
    for code, entry in CODES.items():
        assert entry.explanation in explain_code(code)
    for key, schema in leaves():
        text = explain_key(find_key(key))
        assert text.startswith(f"{key}: {schema['title']}")
        assert " value " in text
        if "x-megatron" in schema:
            assert schema["x-megatron"] in text
    for name in option_table("0.19"):
        text = explain_option(name, "0.19")
        assert re.search(r"set by +(sftc;|`)", text), text


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("lr", "train.lr"),
        ("/train/lr", "train.lr"),
        ("learning_rate", "train.lr"),
        ("train", "train"),
        ("lr-warmup-iters", "train.lr_warmup_iters"),
        ("data.sources[].weight", "data.sources[].weight"),
        ("data.sources[0].weight", "data.sources[].weight"),
    ],
)
def test_a_key_is_found_by_any_of_its_names(word: str, key: str) -> None:
    assert find_key(word) == key
    assert explain_key(key).startswith(key)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("train.seq_lenght", "did you mean `train.seq_length`?"),
        ("seq_lenght", "did you mean `seq_length`?"),
        ("path", "several sections: `tokenizer.path`, `megatron.path`"),
        ("bf16", "write `precision: bf16` under `train`"),
        ("wombat", "there is no key `wombat`"),
    ],
)
def test_what_is_no_key_is_told_what_it_may_be(word: str, told: str) -> None:
    with pytest.raises(Unknown, match=re.escape(told)):
        find_key(word)


def test_what_is_no_code_or_option_is_told_what_it_may_be() -> None:
    with pytest.raises(Unknown, match=r"no code `SFTC299`; there are SFTC201, SFTC202"):
        explain_code("SFTC299")
    with pytest.raises(Unknown, match=r"codes from SFTC101 to SFTC"):
        explain_code("SFTC999")
    with pytest.raises(Unknown, match=r"did you mean `--manual-gc`\?"):
        explain_option("--manual-gcc", "0.19")


def test_completion_knows_codes_keys_and_options() -> None:
    assert "SFTC201" in completions("SFTC2")
    assert "train.lr_warmup_iters" in completions("train.lr_w")
    assert "--lr-warmup-iters" in completions("--lr-w")
    assert completions("no such") == []


HOUSE = """\
task: {is_instruction_dataset: true}
tokenizer: {path: tokenizer}
data: {train_data_path: train.jsonl}
train: {train_iters: 10, global_batch_size: 8, seq_length: 128, lr: 1e-3}
launch: {nproc_per_node: 8, environment: {A: one, B: two}}
"""
RUN = """\
base: house.yaml
name: run
model: {MODEL, init: random, transformer_impl: transformer_engine}
megatron: {args: {manual_gc: true}}
launch: {environment: {B: three}}
"""


@pytest.mark.parametrize(
    ("model", "key", "told"),
    [
        ("preset: gpt-oss-20b", "train.seq_length", "train.seq_length = 128|  house.yaml:4:60"),
        ("preset: gpt-oss-20b", "train.lr", "train.lr = 0.002|  --set, <command-line>:1:16"),
        ("preset: gpt-oss-20b", "launch.environment.B", 'launch.environment.B = "three"|  run.yaml:5:27'),
        ("preset: gpt-oss-20b", "launch.environment.D", "launch.environment.D: not set"),
        (
            "preset: gpt-oss-20b",
            "launch.environment",
            'launch.environment = {"A": "one", "B": "three", "C": "four"}'
            '|  launch.environment.A = "one"|    house.yaml:5:46'
            '|  launch.environment.B = "three"|    run.yaml:5:27'
            '|  launch.environment.C = "four"|    --set, <command-line>:2:28',
        ),
        (
            "preset: gpt-oss-20b",
            "model.num_layers",
            'model.num_layers = 24|  preset gpt-oss-20b|    model.preset = "gpt-oss-20b"|      run.yaml:3:17',
        ),
        ("preset: gpt-oss-20b", "megatron.args.manual_gc", "megatron.args.manual_gc = true|  run.yaml:4:30"),
        ("hf: m", "model.num_layers", 'model.num_layers = 2|  config.json|    model.hf = "m"|      run.yaml:3:13'),
        ("hf: m", "train.micro_batch_size", "train.micro_batch_size = 1|  default"),
        ("hf: m", "checkpoint.save", 'checkpoint.save = "runs/run/checkpoints"|  derived: run_path + /checkpoints'),
    ],
)
def test_every_origin_is_explained(tmp_path: Path, model: str, key: str, told: str) -> None:
    (tmp_path / "house.yaml").write_text(HOUSE)
    (tmp_path / "run.yaml").write_text(RUN.replace("MODEL", model))
    (tmp_path / "m").mkdir()
    shutil.copy(ROOT / "tests/errors/configs/config.json", tmp_path / "m")
    checked = check_recipe(tmp_path / "run.yaml", "run.yaml", ("train.lr=2e-3", "launch.environment.C=four"))
    assert checked.plan is not None, checked.diagnostics
    text = explain_key(find_key(key), built_of(artifacts(checked), "d"))
    answer = "|".join(line[2:] for line in text.partition("in d:\n")[2].splitlines())
    assert answer.startswith(told)


@pytest.mark.parametrize(
    ("golden", "path", "start", "told"),
    [
        ("hooks", "hook_weighted_answers.py", "def loss", {"hooks.datasets_provider", "hooks.loss"}),
        ("hooks", "hook_confidence.py", "", {"hooks.metrics"}),
        ("hooks", "forward_step.py", "METRICS_HOOK", {"hooks.metrics"}),
        ("hooks", "forward_step.py", 'takes="losses', {"hooks.loss"}),
        ("hooks", "forward_step.py", "RUN_PATH", {"data.train_data_path", "logging.run_path"}),
        ("derived", "recipe.lock", '"kind": "rows"', {"data.sources.0.path"}),
        ("derived", "recipe.lock", '"tokenizer.path"', {"tokenizer.path"}),
        ("derived", "recipe.lock", '"lock_version"', set()),
    ],
)
def test_lines_of_copies_and_of_hooks_lead_to_the_keys_that_name_them(
    golden: str, path: str, start: str, told: set[str]
) -> None:
    built = read_built(ROOT / "tests/golden/expected" / golden, "d")
    lines = built.texts[path].splitlines()
    number = next(number for number, line in enumerate(lines, 1) if line.strip().startswith(start))
    found = {step.text.partition(" = ")[0] for step in steps(trace_line(built, path, number)) if " = " in step.text}
    assert told <= found
    assert told or not found


def test_a_lock_that_was_edited_away_is_still_a_copy(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests/golden/expected/derived", tmp_path / "d")
    (tmp_path / "d/recipe.lock").write_text("{\n")
    (step,) = trace_line(read_built(tmp_path / "d", "d"), "recipe.lock", 1).below
    assert list(step.ends()) == ["sftc"]
