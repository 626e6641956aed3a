"""Adapters out of a run: merged into the model, and as `peft` reads them, against what Megatron computes with them."""

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

from jobs import Job, compile_job, kept_logits, require_success, run_jobs  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_models import VOCAB, logits, read_all, save  # noqa: E402

from sftc.runtime.checkpoint.tracker import find_checkpoint  # noqa: E402
from sftc.runtime.errors import UserError  # noqa: E402
from sftc.runtime.hf.export import Export, export  # noqa: E402

TP, PP, EP = "tensor_model_parallel_size", "pipeline_model_parallel_size", "expert_model_parallel_size"
LEARNING = {"train_iters": 4, "lr": 1e-2, "micro_batch_size": 2}
SOME = ["*.layers.1.*", "decoder.layers.*.linear_proj"]
SP = {"sequence_parallel": True}


def job(model: str, ranks: int = 1, **parallel: object) -> Job:
    return Job(model=model, ranks=ranks, parallel=parallel, train=LEARNING, changes={"lora": {"rank": 4, "alpha": 8}})


JOBS = {
    "one process": job("llama3"),
    "tensor, sequence": job("qwen3", 2, **{TP: 2}, **SP),
    "pipeline, tied": job("smollm2", 2, **{PP: 2, "num_virtual_stages_per_pipeline_rank": 2}),
    "biases, tensor": job("biases", 2, **{TP: 2}),
    "some, rslora": Job(
        model="qwen2", train=LEARNING, changes={"lora": {"rank": 2, "alpha": 3, "rslora": True, "targets": SOME}}
    ),
    "experts": job("mixtral", 2, **{EP: 2}),
    "experts, tensor": job("qwen3_moe", 2, **{TP: 2}, **SP),
}
DENSE = [name for name in JOBS if "experts" not in name]
SPARSE = [name for name in JOBS if "experts" in name]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models, and the jobs by number in JOBS; `own` is beside what `plain` wrote."""
    folder = tmp_path_factory.mktemp("adapters")
    for model in {one.model for one in JOBS.values()}:
        save(model, folder / "models" / model)
    places = {name: (folder / str(number), one.ranks) for number, (name, one) in enumerate(JOBS.items())}
    for name, (place, _) in places.items():
        compile_job(place, JOBS[name].recipe(f"hf:{folder / 'models' / JOBS[name].model}"))
    plain, own = Job(model="llama3"), job("llama3", 2, **{TP: 2})
    compile_job(folder / "plain", plain.recipe(f"hf:{folder / 'models/llama3'}"))
    compile_job(folder / "own", own.recipe(str(folder / "plain/runs/hf/checkpoints")))
    run_jobs(folder, {**places, "plain": (folder / "plain", 1), "own": (folder / "own", 2)})
    return folder


def place_of(ran: Path, name: str) -> Path:
    place = ran / (str(list(JOBS).index(name)) if name in JOBS else name)
    require_success(place)
    return place


@pytest.mark.parametrize("name", [*JOBS, "own"])
def test_the_merged_model_computes_what_megatron_does_with_adapters(ran: Path, name: str, tmp_path: Path) -> None:
    tokens, adapted = kept_logits(place_of(ran, name))
    export(Export(run_path=place_of(ran, name) / "runs/hf"), tmp_path / "out")
    torch.testing.assert_close(logits(tmp_path / "out", tokens), adapted[..., :VOCAB], atol=1e-4, rtol=1e-4)
    model = JOBS[name].model if name in JOBS else "llama3"
    moved = (logits(ran / "models" / model, tokens) - adapted[..., :VOCAB]).abs().max()
    assert moved > 0.01, "or the adapters have learnt nothing"


@pytest.mark.parametrize("name", [*DENSE, "own"])
def test_peft_computes_what_megatron_does_with_adapters(ran: Path, name: str, tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    tokens, adapted = kept_logits(place_of(ran, name))
    export(Export(run_path=place_of(ran, name) / "runs/hf", adapter=True), tmp_path / "out")
    base = ran / "models" / (JOBS[name].model if name in JOBS else "llama3")
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == (str(base) if name in JOBS else None)
    assert "library_name: peft\n" in (tmp_path / "out/README.md").read_text()
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    model = peft.PeftModel.from_pretrained(model, str(tmp_path / "out")).eval()
    with torch.no_grad():
        found = model(tokens).logits
    torch.testing.assert_close(found, adapted[..., :VOCAB], atol=1e-4, rtol=1e-4)


def test_what_has_no_adapter_is_the_bases_to_the_bit(ran: Path, tmp_path: Path) -> None:
    export(Export(run_path=place_of(ran, "some, rslora") / "runs/hf"), tmp_path / "out")
    given, found = read_all(ran / "models/qwen2"), read_all(tmp_path / "out")
    changed = {name for name in given if not torch.equal(given[name], found[name])}
    proj = {f"model.layers.{layer}.self_attn.o_proj.weight" for layer in range(4)}
    linears = [f"self_attn.{name}_proj" for name in "qkv"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    assert changed == proj | {f"model.layers.1.{linear}.weight" for linear in linears}


def test_targets_of_all_layers_are_named_shortly_and_others_in_full(ran: Path, tmp_path: Path) -> None:
    def targets(name: str) -> list[str]:
        export(Export(run_path=place_of(ran, name) / "runs/hf", adapter=True), tmp_path / "out")
        return list(json.loads((tmp_path / "out/adapter_config.json").read_text())["target_modules"])

    assert targets("one process") == sorted(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down"))
    assert "model.layers.1.mlp.gate_proj" in targets("some, rslora")
    assert "model.layers.0.mlp.gate_proj" not in targets("some, rslora")


@pytest.mark.parametrize("name", SPARSE)
def test_adapters_of_experts_are_merged_only(ran: Path, name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`peft` has no adapters for single experts") as caught:
        export(Export(run_path=place_of(ran, name) / "runs/hf", adapter=True), tmp_path / "out")
    assert "without --adapter" in str(caught.value.help)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_says_whether_it_is_of_adapters(ran: Path) -> None:
    adapted, plain = (find_checkpoint(place_of(ran, name) / "runs/hf/checkpoints") for name in ("one process", "plain"))
    assert adapted is not None
    assert adapted.is_of_adapters
    assert plain is not None
    assert not plain.is_of_adapters


def test_a_run_of_all_weights_has_no_adapter(ran: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trained all weights, there is no adapter"):
        export(Export(run_path=place_of(ran, "plain") / "runs/hf", adapter=True), tmp_path / "out")


def test_other_weights_than_those_of_the_training_are_not_merged_into(ran: Path, tmp_path: Path) -> None:
    weights = ran / "models/llama3/model.safetensors"
    kept = weights.read_bytes()
    tensors = load_file(weights)
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] += 1e-3
    save_file(tensors, weights, metadata={"format": "pt"})
    try:
        with pytest.raises(UserError, match="were trained beside weights of digest"):
            export(Export(run_path=place_of(ran, "one process") / "runs/hf"), tmp_path / "out")
    finally:
        weights.write_bytes(kept)
    assert not list(tmp_path.iterdir())
