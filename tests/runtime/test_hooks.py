"""Functions of the user's own: the shipped examples compute what they say, in every layout, and mistakes are told."""

import math
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from ranks import PYTHON, environment
from small_jobs import ROOT, Changes, Given, compile_job, learnt, lines_of, recipe, run_jobs

torch = pytest.importorskip("torch")

from sftc.runtime.errors import UserError  # noqa: E402
from sftc.runtime.hooks import hook, hook_of  # noqa: E402

EXAMPLES = ROOT / "recipes/hooks"
WEIGHTED = {"datasets_provider": "./weighted_answers.py:datasets", "loss": "./weighted_answers.py:loss"}
SMOOTHED = {"forward_step": "./smoothing.py:forward_step"}
EVALUATED: Changes = {"eval": {"eval_interval": 3}}
TP2, PP2 = {"tensor_model_parallel_size": 2}, {"pipeline_model_parallel_size": 2}

# What each job adds to the recipe, and its ranks.
JOBS: dict[str, tuple[Changes, int]] = {
    "plain": ({}, 1),
    # Megatron's own mean of micro-batch means, in micro-batches of one row: every answer counts the same.
    "mean of means": ({"train": {"calculate_per_token_loss": False, "micro_batch_size": 1}}, 1),
    "answers": ({"hooks": WEIGHTED, "train": {"micro_batch_size": 4}}, 1),
    "answers, DP2": ({"hooks": WEIGHTED}, 2),
    "answers, CP2": ({"hooks": WEIGHTED, "parallel": {"context_parallel_size": 2}}, 2),
    "no smoothing": ({"hooks": {"forward_step": "./no_smoothing.py:forward_step"}}, 1),
    "smoothing": ({"hooks": SMOOTHED}, 1),
    "smoothing, TP2": ({"hooks": SMOOTHED, "parallel": TP2}, 2),
    "smoothing, PP2": ({"hooks": SMOOTHED, "parallel": PP2}, 2),
    "metrics": ({"hooks": {"metrics": "./confidence.py:metrics"}, **EVALUATED}, 1),
    "metrics, DP2": ({"hooks": {"metrics": "./confidence.py:metrics"}, **EVALUATED}, 2),
    "own samples": ({"hooks": {"datasets_provider": "./own_samples.py:datasets"}, "data": {"padding": "longest"}}, 1),
}
SMOOTHS = """
import sys
import torch
from sftc.runtime import cpu
cpu.activate()
from megatron.core import parallel_state
from ranks import free_port
sys.path.insert(0, sys.argv[1])
from smoothing import smoothed
torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{free_port()}", rank=0, world_size=1)
parallel_state.initialize_model_parallel()
logits, labels = torch.randn(2, 3, 7, requires_grad=True), torch.randint(0, 7, (2, 3))
found = smoothed(logits, labels, 0.1)
options = {"label_smoothing": 0.1, "reduction": "none"}
wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), **options)
torch.testing.assert_close(found.flatten(), wanted)
gradients = [torch.autograd.grad(one.sum(), logits)[0] for one in (found, wanted)]
torch.testing.assert_close(*gradients)
"""
OWN_SAMPLES = """\
import torch


class Counting(torch.utils.data.Dataset):
    def __len__(self):
        return 1 << 40

    def __getitem__(self, index):
        tokens = (torch.arange(33) + index) % 100
        mask = torch.ones(32)
        return {"tokens": tokens[:-1], "labels": tokens[1:], "loss_mask": mask, "position_ids": torch.arange(32)}


def datasets(num_samples, prepared):
    assert prepared is None
    return Counting(), None, None
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("megatron") is None:
        pytest.skip("needs megatron-core[training]")
    folder, given = tmp_path_factory.mktemp("hooks"), Given.quickstart()
    jobs = []
    weights: Changes = {"model": {"init": "random"}, "train": {"train_iters": 1}}
    jobs.append(compile_job(folder / "weights", recipe(folder, given, 1, weights)))
    for name, (changes, ranks) in JOBS.items():
        content = recipe(folder, given, ranks, changes, steps=3)
        content["model"]["load"] = str(folder / "weights/runs/small/checkpoints")
        if "eval" in content:
            content["data"]["valid_data_path"] = str(ROOT / "recipes/quickstart/valid.jsonl")
        if name == "own samples":
            for key in ("train_data_path", "format"):
                del content["data"][key]
        place = folder / name
        place.mkdir()
        for example in EXAMPLES.glob("*.py"):
            shutil.copy(example, place)
        smoothing = (EXAMPLES / "smoothing.py").read_text()
        assert "SMOOTHING = 0.1" in smoothing
        (place / "no_smoothing.py").write_text(smoothing.replace("SMOOTHING = 0.1", "SMOOTHING = 0.0"))
        (place / "own_samples.py").write_text(OWN_SAMPLES)
        jobs.append(compile_job(place, content))
    run_jobs(folder, jobs)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("answers, DP2", "answers"),
        ("answers, CP2", "answers"),
        ("no smoothing", "plain"),
        ("smoothing, TP2", "smoothing"),
        ("smoothing, PP2", "smoothing"),
        ("metrics", "plain"),
        ("metrics, DP2", "plain"),
    ],
)
def test_a_hook_computes_what_it_says(name: str, reference: str, trained: Path) -> None:
    found, wanted = learnt(trained / name), learnt(trained / reference)
    assert len(found) == len(wanted) == 3
    for pair, other in zip(found, wanted, strict=True):
        assert pair == pytest.approx(other, rel=1e-4)


@pytest.mark.slow
def test_a_weight_for_each_sample_is_learnt_from(trained: Path) -> None:
    """The gradient is that of a mean of means; the loss that Megatron reports of the latter is another."""
    found, wanted = learnt(trained / "answers"), learnt(trained / "mean of means")
    assert [norm for _, norm in found] == pytest.approx([norm for _, norm in wanted], rel=1e-4)


@pytest.mark.slow
def test_smoothing_is_that_of_torch() -> None:
    """On one rank, with logits of no model."""
    variables = environment(PYTHONPATH=str(Path(__file__).parent), PYTHONSAFEPATH="")
    done = subprocess.run([PYTHON, "-c", SMOOTHS, str(EXAMPLES)], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_they_do_something(trained: Path) -> None:
    plain = learnt(trained / "plain")[0][0]
    for name in ("answers", "smoothing"):
        assert abs(learnt(trained / name)[0][0] - plain) > 1e-3


@pytest.mark.slow
def test_the_loss_is_divided_by_answers(trained: Path) -> None:
    assert [line["supervised_tokens"] for line in lines_of(trained / "answers, CP2")] == [8, 8, 8]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metrics", "metrics, DP2"])
def test_a_metric_is_a_mean_over_the_batch_and_over_the_evaluation(name: str, trained: Path) -> None:
    for line in lines_of(trained / name):
        assert line["bits"] == pytest.approx(line["lm_loss"] / math.log(2), rel=1e-5)
        assert 0 <= line["sure"] < 1
    (evaluation,) = lines_of(trained / name, "valid_loss")
    assert evaluation["valid_bits"] == pytest.approx(evaluation["valid_loss"] / math.log(2), rel=1e-5)


@pytest.mark.slow
def test_samples_of_a_hook_need_no_rows(trained: Path) -> None:
    said = (trained / "own samples/stderr").read_text()
    assert "there is nothing to prepare" in said
    losses = [loss for loss, _ in learnt(trained / "own samples")]
    assert losses[-1] < losses[0]
    assert [line["supervised_tokens"] for line in lines_of(trained / "own samples")] == [8 * 32] * 3


def loaded(tmp_path: Path, name: str, text: str, takes: str = "losses, loss_mask, batch"):  # type: ignore[no-untyped-def]
    (tmp_path / "hook_mine.py").write_text(text)
    return hook(name, "hook_mine.py:mine", takes, str(tmp_path / "forward_step.py"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "import absent_package\ndef mine(*_): ...",
            "cannot be imported: ModuleNotFoundError: No module named 'absent",
        ),
        ("\n1 / 0\n", "cannot be imported: ZeroDivisionError: division by zero (hook_mine.py:2)"),
        ("other = 1", "is not there"),
        ("mine = 1", "is no function but int"),
        ("def mine(losses): ...", "is called with (losses, loss_mask, batch) and takes (losses): too many positional"),
    ],
)
def test_a_hook_that_cannot_be_called_is_told_at_the_start(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError) as raised:
        loaded(tmp_path, "loss", text)
    assert told in raised.value.message
    assert raised.value.message.startswith("`hooks.loss` (hook_mine.py:mine)")


@pytest.mark.parametrize(
    ("name", "result", "told"),
    [
        ("loss", "losses.sum()", "has to return a sum and a number, it returned a tensor [] of torch.float32"),
        ("loss", "(losses, 1)", "the sum as a scalar tensor, it returned a tensor [2, 3] of torch.float32"),
        ("loss", "(losses.sum().detach(), 1)", "a sum without a gradient: nothing would be learnt"),
        ("loss", "(losses.sum(), 1.5)", "a whole number to divide by, it returned float '1.5'"),
        ("loss", "1 / 0", "raised ZeroDivisionError: division by zero (hook_mine.py:2)"),
        ("metrics", "[]", "has to return a sum and a count for each name"),
        ("metrics", "{'lm_loss': (1, 1)}", "`lm_loss` cannot be the name of a metric"),
        ("metrics", "{'loss': (1, 1)}", "`loss` cannot be the name of a metric"),
        ("metrics", "{'answers': (1, 1)}", "`answers` cannot be the name of a metric"),
        ("metrics", "{'valid_loss': (1, 1)}", "`valid_loss` cannot be the name of a metric"),
        ("metrics", "{'a b': (1, 1)}", "`a b` cannot be the name of a metric"),
        ("metrics", "{'sure': 1}", "`sure` needs a sum and a count, it has int '1'"),
        ("metrics", "{'sure': (losses, 1)}", "`sure` needs two scalars"),
        ("forward_step", "losses", "an output and the function that makes its loss"),
        ("datasets_provider", "(1, 2)", "three datasets (training, validation, test): (int '1', int '2')"),
        ("datasets_provider", "(None, 2, 3)", "returned no training dataset"),
    ],
)
def test_what_a_hook_returns_is_checked(tmp_path: Path, name: str, result: str, told: str) -> None:
    called = loaded(tmp_path, name, f"def mine(losses, loss_mask, batch):\n    return {result}\n")
    with pytest.raises(UserError) as raised:
        called(torch.ones(2, 3, requires_grad=True), torch.ones(2, 3), {})
    assert told in raised.value.message


def test_metrics_have_the_same_names_at_each_call(tmp_path: Path) -> None:
    text = "def mine(losses, loss_mask, batch):\n    return {batch['name']: (1, 2)}\n"
    called = loaded(tmp_path, "metrics", text)
    assert called(torch.ones(2), None, {"name": "a"})["a"].tolist() == [1, 2]
    with pytest.raises(UserError, match="the same names at each call"):
        called(torch.ones(2), None, {"name": "b"})


def test_a_loss_is_a_float32_sum_and_an_int32_number(tmp_path: Path) -> None:
    text = "def mine(losses, loss_mask, batch):\n    return losses.sum(), 3\n"
    total, number = loaded(tmp_path, "loss", text)(torch.ones(2, dtype=torch.bfloat16, requires_grad=True), None, {})
    assert (total.dtype, number.dtype, int(number)) == (torch.float32, torch.int32, 3)
    total.backward()


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ("[]", "has to return a number for each name, it returned []"),
        ("{'bleu': 1}", "`bleu` cannot be the name of a metric"),
        ("{'a b': 1}", "`a b` cannot be the name of a metric"),
        ("{1: 1}", "`1` cannot be the name of a metric"),
        ("{'right': True}", "`right` needs a number, it has bool 'True'"),
        ("{'right': '1'}", "`right` needs a number, it has str '1'"),
        ("{'right': (1, 2)}", "`right` needs a number, it has (int '1', int '2')"),
        ("answers[5]", "raised IndexError: list index out of range (hook_mine.py:2)"),
    ],
)
def test_what_a_hook_says_of_answers_is_checked(tmp_path: Path, result: str, told: str) -> None:
    called = loaded(tmp_path, "answer_metrics", f"def mine(answers):\n    return {result}\n", takes="answers")
    with pytest.raises(UserError) as raised:
        called([])
    assert told in raised.value.message


def test_figures_of_answers_are_numbers_that_json_takes(tmp_path: Path) -> None:
    text = (
        "import fractions, numpy\ndef mine(answers):\n"
        "    return {'n': len(answers), 'half': fractions.Fraction(1, 2), 'one': numpy.float32(1),"
        " 'two': numpy.int64(2), 'none': float('nan')}\n"
    )
    found = loaded(tmp_path, "answer_metrics", text, takes="answers")([{}, {}])
    assert math.isnan(found.pop("none"))
    assert found == {"n": 2, "half": 0.5, "one": 1.0, "two": 2}
    assert [type(value) for value in found.values()] == [int, float, float, int]


def test_the_hook_of_a_plan_is_found_by_its_name() -> None:
    plan = {"hooks": [{"name": "answer_metrics", "target": "figures.py:answer_metrics", "takes": ["answers"]}]}
    assert hook_of(plan, "metrics", EXAMPLES) is None
    figures = hook_of(plan, "answer_metrics", EXAMPLES)
    assert figures is not None
    texts = [("It is 9.", "7", 4), ("none", "3", 2), ("1, no 5", "5", 6)]
    answers = [{"answer": answer, "reference": reference, "tokens": n} for answer, reference, n in texts]
    assert figures(answers) == {"with_number": 2 / 3, "answer_tokens": 4.0, "off_by": 2}
    assert figures(answers[1:2]) == {"with_number": 0.0, "answer_tokens": 2.0}


def test_hooks_of_one_file_share_what_it_keeps(tmp_path: Path) -> None:
    text = "kept = []\ndef mine(*_):\n    kept.append(1)\n    return {'n': (len(kept), 1)}\n"
    first, second = loaded(tmp_path, "metrics", text), loaded(tmp_path, "metrics", text)
    first(torch.zeros(1), None, {})
    assert second(torch.zeros(1), None, {})["n"].tolist() == [2, 1]
