"""TRL: the model of a case by its SFTTrainer, with Liger's kernels, bf16 autocast and fp32 master weights.

    python trl_train.py CASE.json

On a CPU, for a rehearsal, without Liger, whose kernels need a GPU.
"""

import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import torch
import trl
from against_trl import fast_tokenizer
from gpu_case import RESULT, Case, llama, marks
from transformers import TrainerCallback

from sftc.runtime.memory import memory_bytes


class Counting(trl.SFTTrainer):
    """Counts what goes through the model; nothing waits for the sums before an iteration is over."""

    supervised: Any = 0
    tokens: Any = 0

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.tokens += inputs["input_ids"].numel()
        self.supervised += (inputs["labels"][:, 1:] != -100).sum()
        return super().training_step(model, inputs, *args, **kwargs)


class Clock(TrainerCallback):
    """From the end of an iteration to the end of the next one, with the wait for its rows."""

    def __init__(self) -> None:
        self.trainer: Counting | None = None
        self.found: dict[str, list[float]] = {"seconds": [], "tokens": [], "supervised": []}

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._last = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        assert self.trainer is not None
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.found["seconds"].append(now - self._last)
        self.found["tokens"].append(self.trainer.tokens)
        self.found["supervised"].append(int(self.trainer.supervised))
        self.trainer.tokens = self.trainer.supervised = 0
        self._last = time.perf_counter()


def model_of(case: Case, attention: str) -> Any:
    """In fp32, on the device."""
    with torch.device("cpu" if case.cpu else "cuda"):
        return llama(case.shape, attention).float()


def rows_of(case: Case) -> Any:
    """Rows of equal length as tokens, of which all are trained on; conversations as TRL is given them."""
    if not case.packed:
        generator = torch.Generator().manual_seed(1)
        tokens = torch.randint(min(case.shape.vocab, 500), (64, case.shape.seq_length), generator=generator)
        return datasets.Dataset.from_list([{"input_ids": row} for row in tokens.tolist()])
    talks = [json.loads(line)["messages"] for line in Path(case.rows).read_text(encoding="utf-8").splitlines()]
    if marks(case.tokenizer):
        return datasets.Dataset.from_list([{"messages": talk} for talk in talks])
    return datasets.Dataset.from_list([{"prompt": talk[:-1], "completion": talk[-1:]} for talk in talks])


def main() -> None:
    case = Case.loads(Path(sys.argv[1]).read_text())
    # packs of a micro-batch are one long sequence, which torch's attention takes with a mask of its square
    attention = "flash_attention_2" if find_spec("flash_attn") and not case.cpu else "sdpa"
    micro = 1 if case.packed and attention == "sdpa" else case.micro
    datasets.disable_caching()
    config = trl.SFTConfig(
        output_dir="trl",
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=case.batch // micro,
        max_steps=case.iterations,
        max_length=case.shape.seq_length,
        packing=case.packed,
        assistant_only_loss=case.packed and marks(case.tokenizer),
        learning_rate=1e-5,
        bf16=True,
        use_liger_kernel=not case.cpu,
        gradient_checkpointing=False,  # nor does sftc recompute
        optim="adamw_torch_fused",
        dataloader_num_workers=2,  # as a recipe has
        logging_steps=1,  # as a recipe has
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=case.cpu,
    )
    clock = Clock()
    trainer = Counting(
        model=model_of(case, attention),
        args=config,
        train_dataset=rows_of(case),
        processing_class=fast_tokenizer(Path(case.tokenizer)),
        callbacks=[clock],
    )
    clock.trainer = trainer
    trainer.train()
    notes = {"how": f"{'without' if case.cpu else 'with'} Liger, {attention}", "micro": micro}
    print(RESULT + json.dumps({**clock.found, "memory_bytes": memory_bytes(), "notes": notes}), flush=True)


if __name__ == "__main__":
    main()
