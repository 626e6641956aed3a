"""Plain Megatron: the model of a case by its own pretrain(), its own local layers and its own unfused attention.

    python plain_megatron.py CASE.json PORT

What a user gets who writes the flags by hand and has neither Transformer Engine nor Apex: a forward step of a few
lines, random tokens, nothing of sftc. For Megatron-Core 0.19, whose own log says how long each iteration took. On a
CPU, for a rehearsal, sftc stands in for CUDA, and for some layers with it.
"""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_case import RESULT, Case

from sftc.runtime.memory import memory_bytes

ENVIRONMENT = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "CUDA_DEVICE_MAX_CONNECTIONS": "1",
}
ON_CPU = (
    "--distributed-backend gloo --use-cpu-initialization --no-bias-swiglu-fusion --no-bias-dropout-fusion "
    "--no-bias-gelu-fusion"
)


def flags(case: Case) -> list[str]:
    shape = case.shape
    words = f"""
    --num-layers {shape.layers} --hidden-size {shape.hidden} --ffn-hidden-size {shape.ffn}
    --num-attention-heads {shape.heads} --group-query-attention --num-query-groups {shape.groups}
    --kv-channels {shape.channels} --vocab-size {shape.vocab} --max-position-embeddings {shape.seq_length}
    --position-embedding-type rope --rotary-base {shape.rotary_base} --normalization RMSNorm --swiglu
    --disable-bias-linear --attention-dropout 0 --hidden-dropout 0
    --seq-length {shape.seq_length} --micro-batch-size {case.micro} --global-batch-size {case.batch}
    --train-iters {case.iterations} --lr 1e-5 --min-lr 0 --lr-decay-style cosine --bf16 --calculate-per-token-loss
    --transformer-impl local --attention-backend unfused --no-masked-softmax-fusion --no-rope-fusion
    --no-persist-layer-norm --no-gradient-accumulation-fusion
    --tokenizer-type NullTokenizer --no-create-attention-mask-in-dataloader --dataloader-type single
    --eval-iters 0 --eval-interval 1000 --log-interval 1 {ON_CPU if case.cpu else ""}
    """
    return words.split()


class RandomRows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __init__(self, count: int, seq_length: int, vocab: int) -> None:
        self._count, self._seq_length, self._vocab = count, seq_length, vocab

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        text = torch.randint(self._vocab, (self._seq_length + 1,), generator=generator)
        mask, positions = torch.ones(self._seq_length), torch.arange(self._seq_length)
        return {"tokens": text[:-1], "labels": text[1:], "loss_mask": mask, "position_ids": positions}


def loss_func(mask: torch.Tensor, output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    loss = (output.float() * mask).sum()
    count = mask.sum().to(torch.int)
    return loss, count, {"lm loss": torch.stack([loss.detach(), count.float()])}


def forward_step(rows: Any, model: Any, *_: Any) -> Any:
    batch = {name: value.cuda(non_blocking=True) for name, value in next(rows).items()}
    output = model(batch["tokens"], batch["position_ids"], None, labels=batch["labels"])
    return output, partial(loss_func, batch["loss_mask"])


def main() -> None:
    case = Case.loads(Path(sys.argv[1]).read_text())
    os.environ |= {**ENVIRONMENT, "MASTER_PORT": sys.argv[2]}
    if case.cpu:
        from sftc.runtime import cpu

        cpu.activate()
    from megatron.core.datasets import utils
    from megatron.core.enums import ModelType
    from megatron.training import pretrain, set_startup_timestamps
    from megatron.training.argument_utils import gpt_config_from_args, pretrain_cfg_container_from_args
    from megatron.training.arguments import parse_and_validate_args

    def datasets(counts: list[int], **_: Any) -> Any:
        return RandomRows(counts[0], case.shape.seq_length, case.shape.vocab), None, None

    utils.compile_helpers = lambda: None  # the wheel has them compiled, and no Makefile; they are not used here
    datasets.is_distributed = True  # type: ignore[attr-defined]
    set_startup_timestamps(program_start=time.time(), main_entry=time.time())
    sys.argv[1:] = flags(case)
    args = parse_and_validate_args()
    settings = pretrain_cfg_container_from_args(args, gpt_config_from_args(args))
    pretrain(settings, datasets, ModelType.encoder_or_decoder, forward_step)
    print(RESULT + json.dumps({"memory_bytes": memory_bytes()}), flush=True)


if __name__ == "__main__":
    main()
