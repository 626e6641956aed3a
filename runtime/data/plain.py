"""Special-token text that stands in data, tokenized as the plain text that it is.

A tokenizer takes the text of a special token for that token wherever it stands, so a user who types `<|im_end|>` would
end the turn. A second encoder, with special tokens off, takes the stretch of text in question; the rest is tokenized as
ever. A stretch reaches from one special token of the template to the next: there the tokenizer cuts the text anyway.

What is proven for each text: with harmless characters in the place of the data's special tokens, the pieces give the
very tokens that the text gives as a whole; the special tokens in the result are those of the template, in their order;
and the stretches decode to their own text (surrounding white space aside, which some tokenizers add).
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .rows import RowError
from .tokens import TextTokenizer, plain_encoder

HARMLESS = "x"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What `tokenizers.Encoding` says, for a text that was tokenized in pieces: code points of the whole text."""

    ids: list[int]
    offsets: list[tuple[int, int]]

    def char_to_token(self, position: int) -> int | None:
        """The first token that covers the character."""
        at = bisect_right(self.offsets, position, key=lambda span: span[0]) - 1
        while at >= 0 and self.offsets[at][1] <= position:
            if self.offsets[at][0] < self.offsets[at][1]:
                return None
            at -= 1
        # Bytes of one character share its place.
        while at > 0 and self.offsets[at - 1][0] <= position < self.offsets[at - 1][1]:
            at -= 1
        return at if at >= 0 else None

    def token_to_chars(self, token: int) -> tuple[int, int]:
        """The span that token number `token` covers."""
        return self.offsets[token]


class PlainEncoder:
    """Tokenizes texts in which some special-token text is data."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._plain = plain_encoder(tokenizer)
        ids = ((tokenizer.backend.token_to_id(text), text) for text in tokenizer.special_texts)
        self._special = {number: text for number, text in ids if number is not None}

    def encode(self, text: str, literal: Sequence[tuple[int, int]]) -> Tokens:
        """Tokens of `text`, in which the spans `literal`, sorted, are special-token text of data; RowError if the proof
        fails.
        """
        own = [m.span() for m in self._tokenizer.special.finditer(text) if m.span() not in set(literal)]
        stretches = _stretches(own, literal, len(text))
        harmless = text
        for start, end in literal:
            harmless = harmless[:start] + HARMLESS * (end - start) + harmless[end:]
        (whole,) = self._tokenizer.encode([harmless])
        trial = self._pieces(harmless, stretches)
        if (trial.ids, trial.offsets) != (whole.ids, whole.offsets):
            raise _refusal(text, literal, "this tokenizer cannot take the text in pieces")
        tokens = self._pieces(text, stretches)
        found = [self._special[number] for number in tokens.ids if number in self._special]
        if found != [text[start:end] for start, end in own]:
            raise _refusal(text, literal, "the tokenizer makes it that token even as plain text")
        for start, end in stretches:
            ids = [tokens.ids[at] for at, span in enumerate(tokens.offsets) if start <= span[0] and span[1] <= end]
            # A token without width at the border may belong to the piece before.
            decoded = self._tokenizer.decode([number for number in ids if number not in self._special])
            if decoded.strip() != text[start:end].strip():
                raise _refusal(text, literal, "as plain text it does not decode to itself")
        return tokens

    def _pieces(self, text: str, stretches: Sequence[tuple[int, int]]) -> Tokens:
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        done = 0
        for start, end in (*stretches, (len(text), len(text))):
            for encoder, first, last in ((self._tokenizer.backend, done, start), (self._plain, start, end)):
                if first < last:
                    piece = encoder.encode(text[first:last], add_special_tokens=False)
                    ids += piece.ids
                    offsets += [(left + first, right + first) for left, right in piece.offsets]
            done = end
        return Tokens(ids=ids, offsets=offsets)


def _stretches(
    own: Sequence[tuple[int, int]], literal: Sequence[tuple[int, int]], length: int
) -> list[tuple[int, int]]:
    """From template token to template token around each literal span, sorted, each once."""
    found = set()
    for start, end in literal:
        left = max((span[1] for span in own if span[1] <= start), default=0)
        right = min((span[0] for span in own if span[0] >= end), default=length)
        found.add((left, right))
    return sorted(found)


def _refusal(text: str, literal: Sequence[tuple[int, int]], problem: str) -> RowError:
    start, end = literal[0]
    return RowError(
        "special-token", f"the text of the special token `{text[start:end]}` stands in the data, and {problem}"
    )


def spans_within(matches: Iterable[re.Match[str]], data: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans of `matches`, special-token text, that lie inside one of `data`, sorted spans that do not overlap."""
    found = []
    for match in matches:
        at = bisect_right(data, match.start(), key=lambda span: span[0]) - 1
        if at >= 0 and match.end() <= data[at][1]:
            found.append(match.span())
    return found
