"""Which characters of a rendered text are data, and whose: found by a second render, with marks.

Every text of a conversation (content, reasoning, names and string arguments of tool calls, names of tools) is a part. A
part is given an opening and a closing mark of its own, two private-use characters of plane 15, set inside its leading
and trailing white space so that a template may trim. The marked conversation is rendered; if the result without its
marks is the text that the plain conversation gives, character for character, then the marks show where each part went.
If it is not, the template looks at what it writes (its length, its first word) and the marks say nothing.
"""

import json
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from .formats import REASONING_KEYS, Message
from .template import BLOCK_CLOSE, BLOCK_OPEN

type Kind = Literal["content", "reasoning", "call", "tool"]

TOOLS = -1  # the message index of parts that belong to the list of tools
FIRST_MARK = 0xF0000
MAX_PARTS = 0x7FFE  # two marks each, short of the plane's two noncharacters
MARKS = re.compile("([\U000f0000-\U000ffffd\U00100000\U00100001])")
# No mark closes a part but its own, and parts do not nest: the nearest two marks belong together.
MARKED = re.compile("[\U000f0000-\U000ffffd][^\U000f0000-\U000ffffd]*[\U000f0000-\U000ffffd]")
THOUGHT = re.compile(r"(<think>|</think>)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of data. `message` is an index or TOOLS; `text` is without surrounding white space, never empty."""

    message: int
    kind: Kind
    text: str


@dataclass(slots=True, kw_only=True)
class Located:
    """Where each part stands in the plain text: positions of its opening and closing marks, in code points.

    `blocks` are the spans of generation blocks; `points` are all positions of marks with the message they belong to,
    sorted.
    """

    parts: list[Part]
    opens: dict[int, list[int]] = field(default_factory=dict)
    closes: dict[int, list[int]] = field(default_factory=dict)
    blocks: list[tuple[int, int]] = field(default_factory=list)
    points: list[tuple[int, int]] = field(default_factory=list)
    _own: dict[int, list[int]] = field(default_factory=dict)

    def data(self) -> list[tuple[int, int]] | None:
        """Where data stands, sorted spans; None if some marks have no counterpart or cross."""
        spans: list[tuple[int, int]] = []
        for index in self.opens.keys() | self.closes.keys():
            opens, closes = self.opens.get(index, []), self.closes.get(index, [])
            if len(opens) != len(closes):
                return None
            spans += zip(opens, closes, strict=True)
        spans.sort()
        crossed = any(start > end for start, end in spans) or any(a[1] > b[0] for a, b in pairwise(spans))
        return None if crossed else spans

    def own(self, message: int) -> list[int]:
        """Indices of the parts of `message`."""
        if not self._own:
            for index, part in enumerate(self.parts):
                self._own.setdefault(part.message, []).append(index)
        return self._own.get(message, [])

    def extent(self, message: int) -> tuple[int, int] | None:
        """From the first to the last mark of `message`, or None if it has left none. Echoes are left out."""
        spots = []
        for index in self.own(message):
            most = 1 if self.parts[index].kind == "call" else None
            spots += [*self.opens.get(index, ())[:most], *self.closes.get(index, ())[:most]]
        return (min(spots), max(spots)) if spots else None

    def around(self, message: int, first: int, last: int, length: int) -> tuple[int, int] | None:
        """The nearest marks of others before `first` and after `last`; None if there is one in between."""
        inside = self.points[self._at(first + 1) : self._at(last)]
        if any(owner != message for _, owner in inside):
            return None
        earlier = reversed(self.points[: self._at(first + 1)])
        later = self.points[self._at(last) :]
        before = next((spot for spot, owner in earlier if owner != message), 0)
        after = next((spot for spot, owner in later if owner != message), length)
        return before, after

    def _at(self, spot: int) -> int:
        """Index of the first point at `spot` or after it."""
        return bisect_left(self.points, (spot, TOOLS))

    def splits(self, start: int, end: int) -> bool:
        """Is the border of some part strictly inside [start, end)?"""
        index = self._at(start + 1)
        return index < len(self.points) and self.points[index][0] < end

    def intact(self, index: int, text: str, end: int) -> bool:
        """Does the part stand in `text` once before `end`, and as it is (or as JSON writes it)?

        Behind `end` a template may echo parts of a call, as some do that name the function with its result.
        """
        opens, closes = self.opens.get(index, []), self.closes.get(index, [])
        if not opens or len(opens) != len(closes) or any(spot < end for spot in opens[1:]):
            return False
        if len(opens) > 1 and self.parts[index].kind != "call":
            return False
        written, part = text[opens[0] : closes[0]], self.parts[index]
        if written == part.text:
            return True
        return part.kind == "call" and written in (
            json.dumps(part.text, ensure_ascii=ascii)[1:-1] for ascii in (False, True)
        )


def unmarked(text: str) -> str:
    """`text` without the parts that are marked in it."""
    return MARKED.sub("\0", text)


class Marker:
    """Collects parts while it copies a conversation with marks; if it is told to, without their words."""

    def __init__(self, *, wordless: bool = False) -> None:
        self.parts: list[Part] = []
        self._wordless = wordless

    def messages(self, messages: Sequence[Message]) -> list[Message]:
        """A marked copy; every text of the messages becomes a part."""
        return [self._message(message, index) for index, message in enumerate(messages)]

    def tools(self, tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
        """A copy with the tools' names marked."""
        if tools is None:
            return None
        marked = []
        for tool in tools:
            inner = tool.get("function")
            if isinstance(inner, dict) and isinstance(inner.get("name"), str):
                marked.append({**tool, "function": {**inner, "name": self._wrap(inner["name"], TOOLS, "tool")}})
            elif isinstance(tool.get("name"), str):
                marked.append({**tool, "name": self._wrap(tool["name"], TOOLS, "tool")})
            else:
                marked.append(dict(tool))
        return marked

    def _message(self, message: Message, index: int) -> Message:
        marked = dict(message)
        if isinstance(reasoning := message.get("reasoning_content"), str):
            wrapped = self._wrap(reasoning, index, "reasoning")
            marked |= {key: wrapped for key in REASONING_KEYS if message.get(key) == reasoning}
        if isinstance(content := message.get("content"), str):
            if message["role"] == "assistant" and "</think>" in content:
                marked["content"] = self._thought(content, index)
            else:
                marked["content"] = self._wrap(content, index, "content")
        if "tool_calls" in message:
            marked["tool_calls"] = [self._call(call, index) for call in message["tool_calls"]]
        return marked

    def _thought(self, content: str, index: int) -> str:
        """Templates cut reasoning off at its tags, so what stands before the last one is marked by itself."""
        pieces = THOUGHT.split(content)
        last = len(pieces) - 1 - pieces[::-1].index("</think>")
        return "".join(
            piece if THOUGHT.fullmatch(piece) else self._wrap(piece, index, "content" if at > last else "reasoning")
            for at, piece in enumerate(pieces)
        )

    def _call(self, call: dict[str, Any], index: int) -> dict[str, Any]:
        function = call["function"]
        name = self._wrap(function["name"], index, "call")
        return {**call, "function": {**function, "name": name, "arguments": self._leaves(function["arguments"], index)}}

    def _leaves(self, value: Any, index: int) -> Any:
        match value:
            case str():
                return self._wrap(value, index, "call")
            case dict():
                return {key: self._leaves(item, index) for key, item in value.items()}
            case list():
                return [self._leaves(item, index) for item in value]
            case _:
                return value

    def _wrap(self, text: str, message: int, kind: Kind) -> str:
        core = text.strip()
        if not core:
            return text
        start = text.index(core)
        mark = FIRST_MARK + 2 * len(self.parts)
        self.parts.append(Part(message=message, kind=kind, text=core))
        words = "" if self._wordless else core
        return f"{text[:start]}{chr(mark)}{words}{chr(mark + 1)}{text[start + len(core) :]}"


def locate(marked: str, plain: str, parts: list[Part]) -> Located | None:
    """Read the marks of `marked`; None unless `marked` without them is `plain`."""
    # Text and marks by turns: one look at each character, where `sub` and `finditer` would take two.
    pieces = MARKS.split(marked)
    if "".join(pieces[::2]) != plain:
        return None
    found = Located(parts=parts)
    block: int | None = None
    spot = 0
    for text, mark in zip(pieces[::2], pieces[1::2], strict=False):
        spot += len(text)
        if mark == BLOCK_OPEN:
            block = spot if block is None else block
        elif mark == BLOCK_CLOSE:
            if block is not None:
                found.blocks.append((block, spot))
            block = None
        else:
            index, is_close = divmod(ord(mark) - FIRST_MARK, 2)
            if index >= len(parts):
                return None
            (found.closes if is_close else found.opens).setdefault(index, []).append(spot)
            found.points.append((spot, parts[index].message))
    found.points.sort()
    return found
