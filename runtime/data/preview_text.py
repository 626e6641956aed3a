"""Samples for the terminal: tokens on coloured ground, or between bars with the trained ones underlined."""

from collections.abc import Iterator, Sequence

from .preview import Shown, Token
from .visible import NEWLINE, visible, width

BAR = "│"
MARK = "‾"
RESET = "\x1b[0m"
# Two shades each, which alternate, so that the borders of tokens are seen. Text and ground are both set: legible on
# dark and on light terminals, and told apart by brightness as well as by hue.
TRAINED = ("\x1b[38;5;16;48;5;114m", "\x1b[38;5;16;48;5;157m")
OTHER = ("\x1b[38;5;252;48;5;238m", "\x1b[38;5;252;48;5;241m")


def terminal(samples: Sequence[Shown], *, colour: bool, columns: int) -> str:
    """All samples, each under a headline, in lines of at most `columns` columns where tokens allow."""
    lines = [_legend(colour)]
    for sample in samples:
        lines += ["", f"{sample.split} sample {sample.row:,}: {sample.headline}"]
        lines += _coloured(sample.tokens, columns) if colour else _plain(sample.tokens, columns)
    return "\n".join(lines) + "\n"


def _legend(colour: bool) -> str:
    if colour:
        return f"{TRAINED[0]} trained on {RESET} {OTHER[0]} not trained on {RESET}"
    return f"tokens stand between {BAR}; those that are trained on are underlined with {MARK}"


def _cell(token: Token) -> str:
    """The token's text; `⋯` for the second and later ones of a character."""
    return (visible(token.text) if token.part == 1 else "⋯") or "∅"


def _rows(tokens: Sequence[Token], columns: int, border: int) -> Iterator[list[tuple[Token, str]]]:
    """Tokens by line: a line ends behind a token with a line feed, or where the next one does not fit."""
    row: list[tuple[Token, str]] = []
    used = border
    for token in tokens:
        cell = _cell(token)
        size = width(cell) + border
        if row and used + size > columns:
            yield row
            row, used = [], border
        row.append((token, cell))
        used += size
        if cell.endswith(NEWLINE):
            yield row
            row, used = [], border
    if row:
        yield row


def _plain(tokens: Sequence[Token], columns: int) -> Iterator[str]:
    for row in _rows(tokens, columns, 1):
        yield BAR + "".join(cell + BAR for _, cell in row)
        if any(token.trained for token, _ in row):
            marks = " " + "".join((MARK if token.trained else " ") * width(cell) + " " for token, cell in row)
            yield marks.rstrip()


def _coloured(tokens: Sequence[Token], columns: int) -> Iterator[str]:
    at = 0
    for row in _rows(tokens, columns, 0):
        line = ""
        for token, cell in row:
            line += (TRAINED if token.trained else OTHER)[at % 2] + cell
            at += 1
        yield line + RESET
