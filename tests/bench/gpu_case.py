"""What `gpu_speed.py` measures: the model and its arithmetic, the rows, and what one case is told and finds."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Self

RESULT = "RESULT "  # begins the line in which a process says what it found
LETTERS = 12  # of a token at most, on average


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A Llama with tied embeddings."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    groups: int
    channels: int
    vocab: int
    seq_length: int
    rotary_base: int = 500_000

    @property
    def matmul_parameters(self) -> int:
        """That a token is multiplied with: all but the norms, with the output layer and so without the embedding."""
        queries, keys = self.heads * self.channels, self.groups * self.channels
        layer = self.hidden * (queries + 2 * keys) + queries * self.hidden + 3 * self.hidden * self.ffn
        return self.layers * layer + self.vocab * self.hidden

    @property
    def flops_per_token(self) -> int:
        """6 for each parameter, forward and backward. Attention multiplies twice with half of the sequence, since it is
        causal: 6·layers·s·heads·channels, as Megatron and `sftc estimate` count it. Nothing for what is recomputed.
        """
        return 6 * (self.matmul_parameters + self.layers * self.seq_length * self.heads * self.channels)


def llama(shape: Shape, attention: str) -> Any:
    """The same model of transformers, with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.groups,
        head_dim=shape.channels,
        max_position_embeddings=shape.seq_length,
        rope_parameters={"rope_type": "default", "rope_theta": float(shape.rotary_base)},
        tie_word_embeddings=True,
        use_cache=False,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config)


FULL = Shape(
    layers=16, hidden=2048, ffn=8192, heads=32, groups=8, channels=64, vocab=128_256, seq_length=4096
)  # Llama 3.2 1B
TINY = Shape(layers=2, hidden=64, ffn=128, heads=4, groups=2, channels=16, vocab=512, seq_length=128)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """side: `ours`, `plain` or `trl`; packed: conversations in packs in the place of rows of equal length; micro:
    samples that go through the model at once; warm, counted: iterations.
    """

    side: str
    packed: bool
    batch: int
    micro: int
    warm: int
    counted: int
    cpu: bool
    shape: Shape
    tokenizer: str
    rows: str

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Self:
        fields = json.loads(text)
        return cls(**{**fields, "shape": Shape(**fields["shape"])})

    @property
    def iterations(self) -> int:
        return self.warm + self.counted

    @property
    def name(self) -> str:
        return f"{self.side}, {'packed rows' if self.packed else 'rows of equal length'}, global batch {self.batch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Of each iteration from the first: its seconds, its tokens, and those of them that were trained on."""

    seconds: Sequence[float]
    tokens: Sequence[float]
    supervised: Sequence[float]
    memory_bytes: int | None
    notes: dict[str, Any] = field(default_factory=dict)

    def speed(self, case: Case, what: str = "tokens") -> float:
        """Of `what`, a second: the median over the iterations that count. ValueError if there are too few."""
        if len(self.seconds) < case.iterations:
            raise ValueError(f"{len(self.seconds)} iterations of {case.iterations}")
        each = [count / seconds for count, seconds in zip(getattr(self, what), self.seconds, strict=True)]
        return median(each[case.warm : case.iterations])


def iterations(side: str, batch: int) -> tuple[int, int]:
    """To warm up and to count: fewer of large batches and of the slow side, so that all together takes minutes."""
    counted = max(5, 80 // batch)
    if side == "plain":
        counted = -(-counted // 2)
    return -(-counted // 2), counted


def equal_rows(source: Path, target: Path, seq_length: int, count: int = 64) -> None:
    """Conversations of the words of `source`, each longer than `seq_length` tokens, which the recipe then cuts."""
    rows = map(json.loads, source.read_text(encoding="utf-8").splitlines())
    words = " ".join(message["content"] for row in rows for message in row["messages"]).split()
    needed = LETTERS * seq_length
    words *= -(-needed // sum(map(len, words))) + 1
    with target.open("w", encoding="utf-8") as file:
        for number in range(count):
            shift = number * len(words) // count
            text = " ".join([*words[shift:], *words[:shift]])[:needed]
            messages = [{"role": "user", "content": f"{number}. ?"}, {"role": "assistant", "content": text}]
            file.write(json.dumps({"messages": messages}) + "\n")


def recipe(case: Case, run: str = "run") -> str:
    """What a user writes, in JSON, which is YAML."""
    shape = case.shape
    return json.dumps(
        {
            "name": "bench-gpu",
            "task": {"is_sft": True},
            "model": {
                "num_layers": shape.layers,
                "hidden_size": shape.hidden,
                "ffn_hidden_size": shape.ffn,
                "num_attention_heads": shape.heads,
                "num_query_groups": shape.groups,
                "kv_channels": shape.channels,
                "vocab_size": shape.vocab,
                "max_position_embeddings": shape.seq_length,
                "rotary_base": shape.rotary_base,
                "untie_embeddings_and_output_weights": False,
                "init": "random",
            },
            "tokenizer": {"path": case.tokenizer},
            "data": {
                "train_data_path": case.rows,
                "format": "messages",
                "on_overlong": "drop" if case.packed else "truncate_right",
                "packing": case.packed,
                "loss_on": "assistant" if marks(case.tokenizer) else "last_turn",
            },
            "train": {
                "train_iters": case.iterations,
                "micro_batch_size": case.micro,
                "global_batch_size": case.batch,
                "seq_length": shape.seq_length,
                "lr": 1e-5,
                "fused_adam": True,
                "fused_linear_cross_entropy": True,
                "torch_compile": True,
            },
            "logging": {"run_path": run},
            "launch": {"nproc_per_node": 1, "device": "cpu" if case.cpu else "cuda"},
        },
        indent=2,
    )


def marks(tokenizer: str) -> bool:
    """Whether the chat template says itself which tokens are the assistant's: TRL can then train on all its turns, and
    otherwise on the last one.
    """
    config = json.loads((Path(tokenizer) / "tokenizer_config.json").read_text(encoding="utf-8"))
    beside = Path(tokenizer) / "chat_template.jinja"
    template = config.get("chat_template") or (beside.read_text(encoding="utf-8") if beside.is_file() else "")
    return "generation %}" in str(template).replace("-%}", "%}")
