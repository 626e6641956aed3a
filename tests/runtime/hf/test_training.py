"""From Hugging Face weights through real training steps to a model that transformers runs."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs megatron-core[training]"),
]
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import transformers  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from jobs import Job, compile_job, kept_logits, require_success, run_jobs  # noqa: E402
from tiny_models import VOCAB, logits, read_all, save  # noqa: E402

from sftc.compiler.cli import cli  # noqa: E402

SAVING = {"checkpoint": {"export_hf": True, "save_interval": 3}}
LEARNING = {"train_iters": 6, "lr": 0.01}
JOBS = {
    "learnt": Job(
        model="llama3",
        ranks=2,
        parallel={"tensor_model_parallel_size": 2, "use_distributed_optimizer": True},
        train=LEARNING,
        changes={**SAVING, "model": {"make_vocab_size_divisible_by": 64}},
    ),
    "bf16": Job(model="qwen2", train={"precision": "bf16"}),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    for model, dtype in (("llama3", torch.float32), ("qwen2", torch.bfloat16)):
        save(model, folder / model, dtype=dtype)
    places = {name: (folder / name, job.ranks) for name, job in JOBS.items()}
    for name, (place, _) in places.items():
        compile_job(place, JOBS[name].recipe(f"hf:{folder / JOBS[name].model}"))
    # the second launch of `learnt` finds a finished run
    run_jobs(folder, {**places, "second launch": places["learnt"]})
    return folder


def test_the_trained_model_is_exported_at_the_end(ran: Path) -> None:
    place = ran / "learnt"
    require_success(place)
    tokens, found = kept_logits(place)
    torch.testing.assert_close(logits(place / "runs/hf/hf", tokens), found[..., :VOCAB], atol=1e-4, rtol=1e-4)
    before = logits(ran / "llama3", tokens)
    assert (before - found[..., :VOCAB]).abs().max() > 0.05, "it has learnt"
    assert "exported iteration 6 in float32 to `runs/hf/hf`" in (place / "stderr").read_text()


def test_a_second_launch_resumes_the_run_and_not_the_weights(ran: Path) -> None:
    said = (ran / "learnt/stderr").read_text()
    assert "iteration 6 of 6: the training is complete" in said
    assert said.count("exported iteration 6") == 1


def test_bf16_weights_pass_through_unchanged(ran: Path) -> None:
    require_success(ran / "bf16")
    done = export(ran, "bf16", "out")
    assert done.exit_code == 0, done.output
    given, found = read_all(ran / "qwen2"), read_all(ran / "out")
    assert given.keys() == found.keys()
    assert all(value.dtype == torch.bfloat16 and torch.equal(value, found[name]) for name, value in given.items())


def test_the_export_is_a_whole_model(ran: Path) -> None:
    done = export(ran, "learnt", "whole", "--iteration", "3", "--dtype", "bf16", "--max-shard-size", "20KB")
    assert done.exit_code == 0, done.output
    folder = ran / "whole"
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert json.loads((folder / "sftc.json").read_text())["iteration"] == 3
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert "<|turn|>" in tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    card = (folder / "README.md").read_text()
    digest = json.loads((ran / "learnt/runs/hf/run.json").read_text())["manifest"]
    assert digest in card
    assert "  seq_length: 32\n" in card
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert len(model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False)[0]) > 3


def test_an_older_export_is_replaced_and_nothing_else_is(ran: Path) -> None:
    assert export(ran, "bf16", "twice").exit_code == 0
    assert export(ran, "bf16", "twice", "--dtype", "fp32").exit_code == 0
    assert json.loads((ran / "twice/sftc.json").read_text())["dtype"] == "float32"
    (ran / "twice/notes.txt").write_text("mine")
    refused = export(ran, "bf16", "twice")
    assert refused.exit_code == 4
    assert "notes.txt was not written by sftc" in refused.stderr
    assert sorted(path.name for path in ran.glob(".*")) == [], "no scratch is left"


def test_what_is_no_run_is_told(ran: Path, tmp_path: Path) -> None:
    for run, message in (
        (tmp_path, "is no run: it has no `run.json`"),
        (ran / "bf16/runs/hf", "no checkpoint of iteration 7"),
    ):
        done = CliRunner().invoke(cli, ["export", str(run), "-o", str(tmp_path / "out"), "--iteration", "7"])
        assert done.exit_code == 1
        assert message in done.stderr


def export(ran: Path, name: str, target: str, *options: str):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(cli, ["export", str(ran / name / "runs/hf"), "-o", str(ran / target), *options])
