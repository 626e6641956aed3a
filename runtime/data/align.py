"""Spans of text to tokens, through the offsets of the fast tokenizer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .mask import Rendered
from .rows import RowError
from .tokens import TextTokenizer
from .turns import Span


def token_mask(encoding: Any, ids: Sequence[int], rendered: Rendered, tokenizer: TextTokenizer) -> NDArray[np.uint8]:
    """1 for each token that is trained on, else 0; as long as `ids`, which are those of `encoding`: `rendered.tokens`,
    or where there are none, the tokenizer's own for the text.

    A token must lie inside a span or outside of it: RowError for one that straddles a border. White space that a
    special token swallows (its `lstrip` or `rstrip`) is no such case, nor is white space that no token covers.
    """
    assert rendered.tokens is None or encoding is rendered.tokens, "special tokens would come from data"
    mask = np.zeros(len(ids), dtype=np.uint8)
    for span in rendered.spans:
        if span.end_token is None:
            mask[:] = 1
        else:
            first = _first_token(encoding, ids, rendered.text, span, tokenizer)
            last = _last_token(encoding, rendered.text, span)
            # Only the ids tell whether the text of the end-of-turn token was made that token.
            if last is None or ids[last] != tokenizer.backend.token_to_id(span.end_token):
                raise RowError("token-straddles", f"the tokenizer does not make one token of {span.end_token!r}")
            mask[first : last + 1] = 1
    return mask


def _first_token(encoding: Any, ids: Sequence[int], text: str, span: Span, tokenizer: TextTokenizer) -> int:
    for position in range(span.start, span.end):
        token: int | None = encoding.char_to_token(position)
        if token is None:
            if not text[position].isspace():
                break
            continue
        start, end = encoding.token_to_chars(token)
        if start >= span.start:
            return token
        is_special = tokenizer.special.fullmatch(tokenizer.backend.id_to_token(ids[token]) or "")
        if not is_special or not text[span.start : end].isspace():
            raise RowError(
                "token-straddles", f"one token covers {text[start:end]!r}, and only the end of it is the assistant's"
            )
        return token + 1
    raise RowError("token-straddles", f"the tokenizer has no token for {text[span.start : span.start + 10]!r}")


def _last_token(encoding: Any, text: str, span: Span) -> int | None:
    token: int | None = encoding.char_to_token(span.end - 1)
    if token is not None and text[span.end : encoding.token_to_chars(token)[1]].strip():
        raise RowError("token-straddles", f"the token at the end of the turn covers more than {span.end_token!r}")
    return token
