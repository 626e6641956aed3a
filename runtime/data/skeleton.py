"""What a marked render has shown, used again for conversations of the same shape.

Two conversations have the same shape if they differ in nothing but the words of their parts: the same roles, keys,
surrounding white space and other values. A marked render of one shows between which texts of the template its parts
stand. If these texts with the parts of the other in between are what the template gives for that other, character for
character, then every part of it stands where it was put: the same is known as from a marked render of its own, which
costs as much as all the rest. If they are not, that render is made.
"""

import json
from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .formats import Message
from .marks import Located, Marker, Part

SHAPES = 1000  # kept; each is about as large as the template's own text in a conversation
LONGEST_SHAPE = 1 << 15

_ENCODER = json.JSONEncoder(ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Skeleton:
    """The template's texts around the holes, one more than these, and the part that stands in each hole."""

    texts: tuple[str, ...]
    holes: tuple[int, ...]

    @staticmethod
    def of(located: Located, text: str) -> "Skeleton | None":
        """None if a part stands there in another spelling, or parts cross."""
        spans = located.data()
        if spans is None:
            return None
        part_at = {opens: index for index, spots in located.opens.items() for opens in spots}
        holes = [part_at[start] for start, _ in spans]
        if len(part_at) != len(spans) or any(
            text[start:end] != located.parts[index].text for (start, end), index in zip(spans, holes, strict=True)
        ):
            return None
        borders = [0, *(spot for span in spans for spot in span), len(text)]
        texts = [text[start:end] for start, end in list(pairwise(borders))[::2]]
        return Skeleton(texts=tuple(texts), holes=tuple(holes))

    def fill(self, parts: list[Part], text: str) -> Located | None:
        """Where `parts` stand if that makes `text`, else None."""
        pieces = [self.texts[0]]
        for index, after in zip(self.holes, self.texts[1:], strict=True):
            pieces += (parts[index].text, after)
        if "".join(pieces) != text:
            return None
        found = Located(parts=parts)
        spot = len(self.texts[0])
        for index, after in zip(self.holes, self.texts[1:], strict=True):
            part = parts[index]
            end = spot + len(part.text)
            found.opens.setdefault(index, []).append(spot)
            found.closes.setdefault(index, []).append(end)
            found.points += ((spot, part.message), (end, part.message))
            spot = end + len(after)
        return found


class Skeletons:
    """The last SHAPES of them, by shape."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Skeleton] = OrderedDict()

    def shape(self, messages: list[Message], tools: Any, marker: Marker) -> str | None:
        """A text that conversations of one shape share; None for one that is no JSON or too long to be kept.

        `marker` is one that leaves words out; its parts are those of the conversation afterwards.
        """
        try:
            shape = _ENCODER.encode([marker.messages(messages), marker.tools(tools)])
        except (TypeError, ValueError):
            return None
        return shape if len(shape) <= LONGEST_SHAPE else None

    def find(self, shape: str) -> Skeleton | None:
        skeleton = self._known.get(shape)
        if skeleton is not None:
            self._known.move_to_end(shape)
        return skeleton

    def keep(self, shape: str, skeleton: Skeleton) -> None:
        self._known[shape] = skeleton
        if len(self._known) > SHAPES:
            self._known.popitem(last=False)
