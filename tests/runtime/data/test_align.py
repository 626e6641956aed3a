"""Spans of text to tokens: borders that fall inside of a token."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer

from sftc.runtime.data.align import token_mask
from sftc.runtime.data.mask import Rendered
from sftc.runtime.data.rows import RowError
from sftc.runtime.data.tokens import TextTokenizer
from sftc.runtime.data.turns import Span


def supervise(tokenizer: TextTokenizer, text: str, start: int, end: int, end_token: str = "<|im_end|>") -> list[int]:
    span = Span(start=start, end=end, end_token=end_token)
    (encoding,) = tokenizer.encode([text])
    rendered = Rendered(text=text, spans=(span,), way="marks")
    return token_mask(encoding, encoding.ids, rendered, tokenizer).tolist()


def test_characters_of_many_bytes(tokenizer: TextTokenizer) -> None:
    """A token per byte: all four of the answer's emoji, none of the question's."""
    assert supervise(tokenizer, "🙂🙂<|im_end|>x", 1, 12) == [0] * 4 + [1] * 5 + [0]


def test_token_that_straddles_the_start(make_tokenizer: Callable[..., Path]) -> None:
    merged = TextTokenizer.load(make_tokenizer(merges=(("Ċ", "Ċ"),)), 1000)
    assert supervise(merged, "a\n\nb<|im_end|>", 3, 14) == [0, 0, 1, 1]
    with pytest.raises(RowError) as refusal:
        supervise(merged, "a\n\nb<|im_end|>", 2, 14)
    assert refusal.value.code == "token-straddles"


def test_end_token_that_is_none(tokenizer: TextTokenizer) -> None:
    with pytest.raises(RowError, match="does not make one token"):
        supervise(tokenizer, "ab[end]", 1, 7, "[end]")


def test_special_tokens_that_swallow_white_space(make_tokenizer: Callable[..., Path]) -> None:
    """As Phi-3's: the blanks behind `<|u|>` are part of it, and the line ends behind the end of a turn are of that."""
    path = make_tokenizer() / "tokenizer.json"
    backend = Tokenizer.from_file(str(path))
    backend.add_special_tokens([AddedToken(text, rstrip=True, special=True) for text in ("<|u|>", "<|e|>")])
    backend.save(str(path))
    tokenizer = TextTokenizer.load(path.parent, 1000)
    assert supervise(tokenizer, "<|u|>  hi<|e|>\n\n", 6, 14, "<|e|>") == [0, 1, 1, 1]
