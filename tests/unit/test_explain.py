"""Codes, keys and options in words, and every line of every golden build dir down to where it comes from."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from sftc.compiler.built import read_built
from sftc.compiler.codes import CODES
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
    assert "launch.nnodes" in keys("launch.sh", "if [[ ${1-} != --dry-run && -z")
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
