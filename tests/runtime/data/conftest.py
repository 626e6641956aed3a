"""A tokenizer small enough to see through, and the chat templates that masks are tried on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from sftc.runtime.data.align import token_mask
from sftc.runtime.data.formats import read_conversation
from sftc.runtime.data.mask import MaskFinder
from sftc.runtime.data.settings import Columns, DataSettings
from sftc.runtime.data.template import ChatTemplate, TemplateText
from sftc.runtime.data.tokens import TextTokenizer

SPECIAL = ["<pad>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>", "<|call|>"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tokenizer(path: Path, chat_template: Any = CHATML, merges: tuple[tuple[str, str], ...] = ()) -> Path:
    """Bytes are tokens; `merges` adds a few longer ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: number for number, token in enumerate([*SPECIAL, *alphabet, *(a + b for a, b in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": {"content": "<|im_end|>"}, "pad_token": "<pad>"}
    if chat_template is not None:
        config["chat_template"] = chat_template
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


@pytest.fixture
def make_tokenizer(tmp_path: Path) -> Callable[..., Path]:
    """`make_tokenizer(chat_template, merges)` writes a tokenizer directory."""
    return lambda *args, **kwargs: write_tokenizer(tmp_path / "tokenizer", *args, **kwargs)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return TextTokenizer.load(write_tokenizer(tmp_path_factory.mktemp("tokenizer")), 1000)


@pytest.fixture
def supervised(tokenizer: TextTokenizer) -> Callable[..., list[str]]:
    """`supervised(template, messages, loss_on, tools)`: the text that is trained on, span by span, from the tokens."""

    def run(template: str, messages: list[dict[str, Any]], loss_on: Any = "assistant", tools: Any = None) -> list[str]:
        row = {"messages": messages, "tools": tools}
        compiled = ChatTemplate(TemplateText(source="test", default=template), tokenizer.special_tokens)
        finder = MaskFinder(compiled, tokenizer)
        rendered = finder.render(read_conversation(row, "messages", Columns()), loss_on)
        encoding = rendered.tokens or tokenizer.encode([rendered.text])[0]
        mask = token_mask(encoding, encoding.ids, rendered, tokenizer)
        runs: list[list[int]] = []
        for at, (number, on) in enumerate(zip(encoding.ids, mask, strict=True)):
            if on and (at == 0 or not mask[at - 1]):
                runs.append([])
            if on:
                runs[-1].append(number)
        return [tokenizer.decode(run) for run in runs]

    return run


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """`write_rows(name, rows)`: rows are objects, or bytes and strings for lines that are none."""

    def write(name: str, rows: list[Any]) -> Path:
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path = tmp_path / name
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return write


@pytest.fixture
def settings(tmp_path: Path, make_tokenizer: Callable[..., Path]) -> Callable[..., DataSettings]:
    """Settings over `train.jsonl` in the test's directory; anything can be given another value."""

    def make(**values: Any) -> DataSettings:
        if "tokenizer_path" not in values:
            values["tokenizer_path"] = make_tokenizer()
        defaults = {
            "train_data_path": tmp_path / "train.jsonl",
            "store_path": tmp_path / "store",
            "seq_length": 64,
            "vocab_size": 300,
        }
        return DataSettings(**{**defaults, **values})

    return make


@pytest.fixture
def pair() -> Callable[[str, str], dict[str, Any]]:
    """A row with one question and one answer."""
    return lambda ask, reply: {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]}
