"""Every family through `model.load: hf:DIR`, in every layout, against transformers; and out again."""

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

from jobs import Job, compile_job, kept_logits, require_success, run_jobs  # noqa: E402
from tiny_models import MODELS, VOCAB, logits, read_all, save  # noqa: E402

from sftc.runtime.hf.export import Export, export  # noqa: E402

SHARDED = ("llama2", "mixtral")
TP, PP = "tensor_model_parallel_size", "pipeline_model_parallel_size"
LAYOUTS = {
    "tensor": Job(model="llama3", ranks=2, parallel={TP: 2}),
    "tensor, more ranks than key heads": Job(model="qwen2", ranks=4, parallel={TP: 4}),
    "pipeline, tied": Job(model="qwen2", ranks=2, parallel={PP: 2}),
    "context": Job(model="llama3", ranks=2, parallel={"context_parallel_size": 2}),
    "tensor, pipeline": Job(model="qwen3", ranks=4, parallel={TP: 2, PP: 2}),
    "virtual pipeline": Job(
        model="smollm2",
        ranks=2,
        parallel={PP: 2, "num_virtual_stages_per_pipeline_rank": 2},
        train={"micro_batch_size": 2},
    ),
    "experts": Job(model="mixtral", ranks=2, parallel={"expert_model_parallel_size": 2}, train={"micro_batch_size": 2}),
    "experts, tensor": Job(model="qwen3_moe", ranks=2, parallel={TP: 2, "sequence_parallel": True}),
}
JOBS = {**{name: Job(model=name) for name in MODELS}, **LAYOUTS}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models, and the jobs by number in JOBS."""
    folder = tmp_path_factory.mktemp("families")
    for name in MODELS:
        save(name, folder / "models" / name, shard="20KB" if name in SHARDED else "5GB")
    places = {name: (folder / str(number), job.ranks) for number, (name, job) in enumerate(JOBS.items())}
    for name, (place, _) in places.items():
        compile_job(place, JOBS[name].recipe(f"hf:{folder / 'models' / JOBS[name].model}"))
    run_jobs(folder, places)
    return folder


def place_of(ran: Path, name: str) -> Path:
    place = ran / str(list(JOBS).index(name))
    require_success(place)
    return place


@pytest.mark.parametrize("name", JOBS)
def test_megatron_computes_what_transformers_does(ran: Path, name: str) -> None:
    tokens, found = kept_logits(place_of(ran, name))
    wanted = logits(ran / "models" / JOBS[name].model, tokens)
    assert wanted.std() > 0.3, "or agreement means little"
    torch.testing.assert_close(found[..., :VOCAB], wanted, atol=1e-4, rtol=1e-4)


def test_a_model_of_several_files_is_among_them(ran: Path) -> None:
    for name in SHARDED:
        assert len(list((ran / "models" / name).glob("model-*.safetensors"))) > 2


@pytest.mark.parametrize("name", JOBS)
def test_in_and_out_again_is_the_same_to_the_bit(ran: Path, name: str, tmp_path: Path) -> None:
    export(Export(run_path=place_of(ran, name) / "runs/hf"), tmp_path / "out")
    given, found = read_all(ran / "models" / JOBS[name].model), read_all(tmp_path / "out")
    assert sorted(given) == sorted(found)
    for tensor, value in given.items():
        assert value.dtype == found[tensor].dtype
        assert torch.equal(value, found[tensor]), tensor


@pytest.mark.parametrize("name", MODELS)
def test_a_model_made_from_the_plan_alone_loads_in_transformers(
    ran: Path, name: str, tmp_path: Path, monkeypatch
) -> None:
    """As if the run had started from random weights: no config.json to copy from."""
    monkeypatch.setattr("sftc.runtime.hf.export.hugging_face", lambda _: None)
    export(Export(run_path=place_of(ran, name) / "runs/hf", max_shard=30_000), tmp_path / "out")
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    tokens, wanted = kept_logits(place_of(ran, name))
    torch.testing.assert_close(logits(tmp_path / "out", tokens), wanted[..., :VOCAB], atol=1e-4, rtol=1e-4)
