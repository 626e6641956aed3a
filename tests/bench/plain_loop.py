"""A plain PyTorch loop that trains the model of a build dir on the batches of a run: what `cpu_speed.py` compares with.

The way a person would write it who knows torch well: its own functions and modules, the fused AdamW, one projection for
queries, keys and values, one for gate and up. No evaluation, no checkpoint, no log.
"""

import math
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sftc.runtime.bundle import Bundle
from sftc.runtime.data.dataset import PreparedData

PAD_TO = 16  # as in forward_step.py


class Block(nn.Module):
    def __init__(self, hidden: int, ffn: int, heads: int, groups: int, eps: float) -> None:
        super().__init__()
        self.head = hidden // heads
        self.heads = [heads, groups, groups]
        self.attention_norm = nn.RMSNorm(hidden, eps=eps)
        self.qkv = nn.Linear(hidden, sum(self.heads) * self.head, bias=False)
        self.out = nn.Linear(hidden, hidden, bias=False)
        self.mlp_norm = nn.RMSNorm(hidden, eps=eps)
        self.gate_and_up = nn.Linear(hidden, 2 * ffn, bias=False)
        self.down = nn.Linear(ffn, hidden, bias=False)

    def forward(self, rows: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[b, s, h] → [b, s, h]."""
        b, s, _ = rows.shape
        qkv = self.qkv(self.attention_norm(rows)).view(b, s, -1, self.head).transpose(1, 2)
        query, key, value = qkv.split(self.heads, dim=1)
        query, key = rotated(query, cos, sin), rotated(key, cos, sin)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        rows = rows + self.out(seen.transpose(1, 2).reshape(b, s, -1))
        gate, up = self.gate_and_up(self.mlp_norm(rows)).chunk(2, dim=-1)
        return rows + self.down(F.silu(gate) * up)


def rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat([-second, first], dim=-1) * sin


class Model(nn.Module):
    cos: Tensor
    sin: Tensor

    def __init__(self, plan: Bundle) -> None:
        super().__init__()

        def size(name: str) -> int:
            return int(plan.value(f"model.{name}"))

        hidden, heads, layers = size("hidden_size"), size("num_attention_heads"), size("num_layers")
        eps = float(plan.value("model.norm_epsilon"))
        self.embedding = nn.Embedding(size("vocab_size"), hidden)
        self.blocks = nn.ModuleList(
            Block(hidden, size("ffn_hidden_size"), heads, size("num_query_groups"), eps) for _ in range(layers)
        )
        self.norm = nn.RMSNorm(hidden, eps=eps)
        self.output = nn.Linear(hidden, size("vocab_size"), bias=False)
        waves = size("rotary_base") ** (-torch.arange(0, hidden // heads, 2) * heads / hidden)
        angles = torch.outer(torch.arange(size("max_position_embeddings")), waves).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        std = float(plan.value("model.init_method_std"))
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                is_last = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=std / math.sqrt(2 * layers) if is_last else std)

    def forward(self, tokens: Tensor) -> Tensor:
        """[b, s] → logits [b, s, vocabulary]."""
        rows = self.embedding(tokens)
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        for block in self.blocks:
            rows = block(rows, cos, sin)
        return self.output(self.norm(rows))


# What the model above is made of; a build dir that says something else needs another loop.
ASSUMED = {
    "model.normalization": "RMSNorm",
    "model.swiglu": True,
    "model.position_embedding_type": "rope",
    "model.rotary_percent": 1.0,
    "model.add_bias_linear": False,
    "model.untie_embeddings_and_output_weights": True,
    "model.attention_dropout": 0.0,
    "model.hidden_dropout": 0.0,
    "train.precision": "fp32",
    "train.optimizer": "adam",
    "train.lr_decay_style": "cosine",
    "data.padding": "longest",
}


class Loop:
    """Steps on the batches of the run, one by one. `seconds` and `losses` have one entry each."""

    def __init__(self, plan: Bundle, iterations: int, threads: int) -> None:
        for key, value in ASSUMED.items():
            assert plan.value(key) == value, f"{key} is {plan.value(key)}, not {value}"
        self._plan, self._iterations = plan, iterations
        torch.set_num_threads(threads)
        torch.manual_seed(self._int("seed"))
        batch = self._int("global_batch_size")
        assert batch == self._int("micro_batch_size"), "the loop does not accumulate"
        data = PreparedData.of_run(plan.value("logging.run_path"))
        self.samples = data.train(
            num_samples=batch * iterations, seed=self._int("seed"), global_batch_size=batch, micro_batch_size=batch
        )
        self.batches = iter(DataLoader(self.samples, batch_size=batch))
        self.model = Model(plan)
        matrices = [parameter for parameter in self.model.parameters() if parameter.dim() > 1]
        norms = [parameter for parameter in self.model.parameters() if parameter.dim() == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": self._float("weight_decay")}, {"params": norms, "weight_decay": 0.0}],
            betas=(self._float("adam_beta1"), self._float("adam_beta2")),
            eps=self._float("adam_eps"),
            fused=True,  # 0.3 ms a step where foreach takes 0.9
        )
        self.cpu_seconds = 0.0  # of all steps together
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def step(self) -> None:
        began, cpu_before = time.perf_counter(), time.process_time()
        rows = next(self.batches)
        end = -(-int(rows["length"].max()) // PAD_TO) * PAD_TO
        tokens, labels, mask = (rows[key][:, :end] for key in ("tokens", "labels", "loss_mask"))
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(len(self.losses) + 1)
        each = F.cross_entropy(self.model(tokens).flatten(0, 1), labels.flatten(), reduction="none")
        loss = (each * mask.flatten()).sum() / mask.sum()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self._float("clip_grad"))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses.append(loss.item())
        self.seconds.append(time.perf_counter() - began)
        self.cpu_seconds += time.process_time() - cpu_before

    def tokens(self, iteration: int) -> int:
        """Of the rows of batch number `iteration`, from 0; no padding."""
        return sum(self.samples.lengths_in(iteration))

    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def _rate(self, iteration: int) -> float:
        warmup = self._int("lr_warmup_iters")
        done = max(iteration - warmup, 0) / max(self._iterations - warmup, 1)
        return self._float("lr") * min(iteration / warmup, 1.0) * (0.5 + 0.5 * math.cos(math.pi * done))

    def _float(self, key: str) -> float:
        return float(self._plan.value(f"train.{key}"))

    def _int(self, key: str) -> int:
        return int(self._plan.value(f"train.{key}"))
