"""Text of data for people's eyes: what is invisible, moves the cursor or turns the writing is spelled out.

A row may hold escape sequences, direction marks or tabs; shown raw, they would act on the terminal or hide words.
"""

import re
import unicodedata

NEWLINE = "⏎"
DIRECTORY = re.compile(r"`/(?:[^`/\n]+/)+([^`/\n]+)`")


def visible(text: str) -> str:
    """`text` with every character to be seen: line feeds as `⏎` (the break itself is left to the caller), controls as
    their pictures, other invisible ones as `⟨U+200B⟩`; blanks stay unless there is nothing else.
    """
    if text and not text.strip(" "):
        return "·" * len(text)
    shown = "".join(map(_shown, text))
    return f"◌{shown}" if unicodedata.combining(shown[:1] or " ") else shown


def _shown(character: str) -> str:
    code = ord(character)
    match character:
        case " ":
            return character
        case "\n":
            return NEWLINE
        case "\t":
            return "⇥"
        case "\x7f":
            return "␡"
    if code < 0x20:
        return chr(0x2400 + code)
    # Controls, format and private-use characters; line, paragraph and odd blanks.
    if unicodedata.category(character)[0] in "CZ":
        return f"⟨U+{code:04X}⟩"
    return character


def without_folders(text: str) -> str:
    """`text` in which absolute paths between backticks are their last names: the same on every machine."""
    return DIRECTORY.sub(r"`\1`", text)


def width(text: str) -> int:
    """Columns of a terminal that `text` takes; wide (East Asian) characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )
