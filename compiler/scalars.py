"""Bare YAML words to values, by the core schema of YAML 1.2 (section 10.3.2), less what readers disagree about.

`1e-5` is a number here, as YAML 1.2 says. A word that YAML 1.1 reads differently (`yes`, `1_000`, `010`, `1:30`,
`2025-01-31`) is refused instead of guessed; so is a number that no computer holds. Quoted text never comes here.
"""

import math
import re
from dataclasses import dataclass

type Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a bare word is not taken; `code` is a key of `codes.CODES`."""

    code: str
    message: str
    help: str


_WORDS: dict[str, Scalar] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_OLD_BOOLEANS = {"yes": True, "on": True, "y": True, "no": False, "off": False, "n": False}

_INTEGER = re.compile(r"[-+]?[0-9]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_OTHER_BASE = re.compile(r"[-+]?0(?:o[0-7]+|b[01]+)")
_DECIMAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_BASE_60 = re.compile(r"[-+]?[0-9]+(?::[0-5]?[0-9])+(?:\.[0-9]*)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}[-+.:0-9Zz \t]*)?")

_INT64 = range(-(2**63), 2**63)


def resolve_plain(text: str) -> tuple[Scalar, Refusal | None]:
    """The value of the bare word `text`; with a refusal, the value it was probably meant to have, else None."""
    if text in _WORDS:
        return _WORDS[text], None
    if text.lower() in _OLD_BOOLEANS and text in (text.lower(), text.upper(), text.capitalize()):
        return _old_boolean(text)
    if text[0] not in "+-.0123456789":
        return text, None
    if "_" in text and is_number(text.replace("_", "")):
        plain = text.replace("_", "")
        message = f"`{text}` has underscores, which YAML 1.2 does not read as a number"
        return resolve_plain(plain)[0], Refusal(code="SFTC122", message=message, help=f"write `{plain}`")
    if _INTEGER.fullmatch(text) or _HEXADECIMAL.fullmatch(text) or _OTHER_BASE.fullmatch(text):
        return _integer(text)
    if _DECIMAL.fullmatch(text):
        return _decimal(text)
    return _neither(text)


def is_number(text: str) -> bool:
    """Whether `text`, written bare, is a finite number of YAML 1.2."""
    return any(pattern.fullmatch(text) for pattern in (_INTEGER, _HEXADECIMAL, _DECIMAL))


def _old_boolean(text: str) -> tuple[Scalar, Refusal]:
    value = _OLD_BOOLEANS[text.lower()]
    message = f"`{text}` is a boolean to some YAML readers and a word to others"
    meant = "true" if value else "false"
    return value, Refusal(code="SFTC120", message=message, help=f'write `{meant}`, or `"{text}"` if you mean the word')


def _integer(text: str) -> tuple[Scalar, Refusal | None]:
    if _LEADING_ZERO.fullmatch(text):
        digits = text.lstrip("+-0") or "0"
        sign = "-" if text.startswith("-") else ""
        message = f"`{text}` is octal to some YAML readers and decimal to others"
        return None, Refusal(
            code="SFTC123", message=message, help=f'write `{sign}{digits}`, or `"{text}"` if you mean the text'
        )
    # Twenty digits are more than 64 bits in any base but two, and int() refuses thousands of digits with an exception.
    binary = _OTHER_BASE.fullmatch(text) and "b" in text
    value = None if len(text) > (70 if binary else 23) else int(text, 0)
    if value is None or value not in _INT64:
        message = f"`{_short(text)}` does not fit in 64 bits"
        return None, Refusal(code="SFTC121", message=message, help="use an integer from -2^63 to 2^63 - 1")
    if _OTHER_BASE.fullmatch(text):
        message = f"`{text}` is a number to some YAML readers and a word to others"
        return value, Refusal(code="SFTC123", message=message, help=f"write `{value}`")
    return value, None


def _decimal(text: str) -> tuple[Scalar, Refusal | None]:
    value = float(text)
    mantissa = re.split("[eE]", text)[0]
    if math.isinf(value):
        message = f"`{_short(text)}` is beyond the largest double, 1.8e308"
    elif value == 0 and mantissa.strip("+-0."):
        message = f"`{_short(text)}` is so small that it would be read as 0"
    else:
        return value, None
    return None, Refusal(code="SFTC121", message=message, help="write a finite number that a double can hold")


def _neither(text: str) -> tuple[Scalar, Refusal | None]:
    if _NOT_FINITE.fullmatch(text):
        return None, Refusal(code="SFTC121", message=f"`{text}` is not a finite number", help="write a finite number")
    if _BASE_60.fullmatch(text):
        message = f"`{text}` is a number in base 60 to some YAML readers and a word to others"
        return text, Refusal(code="SFTC124", message=message, help=f'put it in quotes: `"{text}"`')
    if _DATE.fullmatch(text):
        message = f"`{text}` is a date to some YAML readers and a word to others"
        return text, Refusal(code="SFTC125", message=message, help=f'put it in quotes: `"{text}"`')
    return text, None


def _short(text: str) -> str:
    return text if len(text) <= 30 else f"{text[:24]}..."
