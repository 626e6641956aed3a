"""Memory and time of the loss with and without its logits: `make bench-loss`.

    python loss_memory.py [--tokens N] [--vocabulary V] [--hidden H] [--supervised SHARE]

One micro-batch goes forward and backward through an output layer and the loss, on one thread of the CPU: as Megatron
computes it, and as `train.fused_linear_cross_entropy` does, with a mask that keeps a share of the tokens. Each in a
process of its own. Memory is the largest growth of anonymous memory, with the gradients of weights and input.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import torch

TURNS = 3
KINDS = {
    "logits": "Megatron: logits of all tokens",
    "fused": "fused, every token",
    "masked": "fused, supervised tokens",
}


def main() -> None:
    options = _options()
    if options.kind:
        print(json.dumps(measure(options)))
        return
    found = {}
    for kind in KINDS:
        words = [sys.executable, __file__, *sys.argv[1:], "--kind", kind]
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
        found[kind] = json.loads(done.stdout.splitlines()[-1])
    shape = f"vocabulary {options.vocabulary:,}, hidden {options.hidden:,}"
    print(f"{options.tokens:,} tokens, {shape}, float32, one thread")
    print(f"{options.supervised:.0%} of the tokens supervised; torch {torch.__version__}\n")
    print("| loss | peak memory | of Megatron's | seconds | of Megatron's |\n|---|---|---|---|---|")
    whole = found["logits"]
    for kind, text in KINDS.items():
        size, seconds = found[kind]["bytes"], found[kind]["seconds"]
        shares = f"{size / whole['bytes']:.2f} | {seconds:.2f} | {seconds / whole['seconds']:.2f}"
        print(f"| {text} | {size >> 20:,} MiB | {shares} |")


def measure(options: argparse.Namespace) -> dict[str, float]:
    from hf_memory import Peak, anonymous
    from megatron.core.tensor_parallel import vocab_parallel_cross_entropy

    from sftc.runtime.linear_cross_entropy import token_losses

    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        group = torch.distributed.group.WORLD
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(options.tokens, 1, options.hidden, generator=generator).requires_grad_()
    weight = (torch.randn(options.vocabulary, options.hidden, generator=generator) / 50).requires_grad_()
    labels = torch.randint(0, options.vocabulary, (1, options.tokens), generator=generator)
    mask = (torch.rand(1, options.tokens, generator=generator) < options.supervised).float()

    def turn() -> None:
        if options.kind == "logits":
            losses = vocab_parallel_cross_entropy(hidden @ weight.t(), labels.t().contiguous(), tp_group=group).t()
        else:
            kept = mask if options.kind == "masked" else None
            losses = token_losses(hidden, weight, labels, kept, group=group, sequence_parallel=False)
        (losses * mask).sum().backward()

    seconds, largest = [], 0
    for _ in range(TURNS):
        hidden.grad = weight.grad = None
        before, started = anonymous(), time.perf_counter()
        with Peak() as peak:
            turn()
        seconds.append(time.perf_counter() - started)
        largest = max(largest, peak.bytes - before)
    return {"seconds": min(seconds), "bytes": largest}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=49_152, help="that of SmolLM2")
    parser.add_argument("--hidden", type=int, default=576, help="that of SmolLM2-135M")
    parser.add_argument("--supervised", type=float, default=0.5)
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
