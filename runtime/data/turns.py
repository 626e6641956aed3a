"""The turns of one rendered conversation: where each begins and ends, and the checks of the proof (see `mask`)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NoReturn

from .facts import TemplateFacts
from .formats import Conversation, Message
from .marks import TOOLS, Located, Marker, locate
from .plain import spans_within
from .rows import RowError

type Way = Literal["marks", "generation blocks", "prefixes", "whole text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Code points [start, end) of the text; `end_token` is the special token that they end with, if they must."""

    start: int
    end: int
    end_token: str | None


class Turns(ABC):
    """One conversation's text, asked for the spans of its assistant messages.

    `literal`, known once nothing is lost, are spans of special-token text that is data.
    """

    way: Way
    literal: tuple[tuple[int, int], ...] = ()

    def __init__(self, facts: TemplateFacts, conversation: Conversation, text: str) -> None:
        self.facts = facts
        self.messages = conversation.messages
        self.tools = conversation.tools
        self.text = text
        self.prompt = facts.generation_prompt

    @abstractmethod
    def check_nothing_lost(self) -> int:
        """RowError if a message or tool left no trace; else the number of messages without their reasoning."""

    @abstractmethod
    def span(self, index: int) -> Span:
        """The proven span of assistant message `index`, or RowError."""

    @abstractmethod
    def answer(self, index: int, span: Span) -> int:
        """Where in its span the answer of message `index`, or its tool call, follows its reasoning; the span's start if
        there is none. RowError if that cannot be told.
        """

    def refuse(self, code: str, index: int, problem: str) -> NoReturn:
        source = self.facts.source
        raise RowError(code, f"message {index + 1} ({self.messages[index]['role']}): {problem} (template `{source}`)")

    def prefix(self, index: int) -> str | None:
        """The prompt that a model is given before it writes message `index`, if the text begins with it."""
        try:
            prompt = self.facts.template.render(self.messages[:index], self.tools, add_generation_prompt=True)
        except RowError:
            return None
        return prompt if self.text.startswith(prompt) else None

    def close(self, index: int, start: int, last: int, limit: int) -> Span:
        """The span from `start` to the end-of-turn token behind `last`, where the message's words end."""
        calls = "tool_calls" in self.messages[index]
        end = self.facts.first_end(self.text, last, limit, calls=calls)
        if end is None:
            self.refuse("no-end-of-turn", index, f"no end-of-turn token behind it, but {_show(self.text[last:limit])}")
        between = self.text[last : end[0]]
        if between.strip() and (not calls or (self.prompt.strip() and self.prompt in between)):
            self.refuse("text-after-content", index, f"the template writes {_show(between)} behind its content")
        return Span(start=start, end=end[1], end_token=self.text[end[0] : end[1]])


class MarkedTurns(Turns):
    """The marks show where every part of the conversation stands."""

    def __init__(self, facts: TemplateFacts, conversation: Conversation, text: str, located: Located) -> None:
        super().__init__(facts, conversation, text)
        self.located = located
        self.way = "generation blocks" if facts.template.has_generation_blocks else "marks"

    def check_nothing_lost(self) -> int:
        data = self.located.data()
        matches = list(self.facts.special.finditer(self.text))
        self.literal = () if data is None else tuple(spans_within(matches, data))
        for match in matches:
            if self.located.splits(*match.span()):
                raise RowError("special-token", f"data and template together spell the special token `{match.group()}`")
        thoughtless = set()
        for index, part in enumerate(self.located.parts):
            if self.located.opens.get(index) and self.located.closes.get(index):
                continue
            if part.kind == "reasoning":
                thoughtless.add(part.message)
            elif part.message == TOOLS:
                raise RowError("tools-lost", f"the chat template `{self.facts.source}` does not write the tools")
            elif part.kind == "call":
                self.refuse(
                    "tool-calls-lost", part.message, f"the template does not write {_show(part.text)} of its call"
                )
            else:
                self.refuse("content-lost", part.message, f"the template does not write {_show(part.text)}")
        return len(thoughtless)

    def span(self, index: int) -> Span:
        located, text = self.located, self.text
        extent = located.extent(index)
        if extent is None:
            self.refuse("empty-turn", index, "it is to be trained on, but it is empty")
        first, last = extent
        self._check_words(index, last)
        around = located.around(index, first, last, len(text))
        if around is None:
            self.refuse("turns-mixed", index, "the template writes another message's words among its own")
        before, after = around
        start = self._start(index, before, first)
        if self.facts.first_end(text, start, first, calls=True):
            self.refuse("turns-mixed", index, f"a turn ends in {_show(text[start:first])}, before its words")
        span = self.close(index, start, last, after)
        self._check_words(index, span.end)
        self._check_blocks(index, span)
        return span

    def answer(self, index: int, span: Span) -> int:
        located = self.located
        own = [part for part in located.own(index) if located.opens.get(part)]
        thoughts = [part for part in own if located.parts[part].kind == "reasoning"]
        words = [located.opens[part][0] for part in own if located.parts[part].kind != "reasoning"]
        if not thoughts:
            return span.start
        if not words:
            self.refuse("nothing-to-train", index, "it is nothing but reasoning, which is not trained on")
        if any(located.closes[part][-1] > min(words) for part in thoughts):
            self.refuse("turns-mixed", index, "its reasoning does not come before its words")
        return min(words)

    def _check_words(self, index: int, end: int) -> None:
        """Every part of the message stands once before `end`, unchanged, but for reasoning that is left out."""
        located = self.located
        for part in located.own(index):
            is_absent = part not in located.opens and part not in located.closes
            if not (located.intact(part, self.text, end) or (is_absent and located.parts[part].kind == "reasoning")):
                self.refuse(
                    "words-changed", index, f"the template cuts, changes or repeats {_show(located.parts[part].text)}"
                )

    def _start(self, index: int, before: int, first: int) -> int:
        """Right behind the last generation prompt in what the template writes before the message's words."""
        for prompt in (self.prompt, *self.facts.other_prompts) if self.prompt.strip() else ():
            at = self.text.rfind(prompt, before, first)
            if at >= 0:
                return at + len(prompt)
        prefix = self.prefix(index)
        if prefix is not None and before <= len(prefix) <= first:
            return len(prefix)
        is_next = index > 0 and (self.located.extent(index - 1) or (0, -1))[1] == before
        tail = self._tail(index) if is_next and not self.prompt.strip() else None
        if tail is None or before + len(tail) > first or not self.text.startswith(tail, before):
            there = _show(self.text[before:first])
            problem = f"{there} is before its words, not the generation prompt {_show(self.prompt)}"
            self.refuse("no-generation-prompt", index, problem)
        return before + len(tail)

    def _tail(self, index: int) -> str | None:
        """For templates without a generation prompt: what a model reads between the last words before message `index`
        and its own, when it is about to write that message; None if that cannot be told.
        """
        marker = Marker()
        marked = marker.messages(self.messages[:index]), marker.tools(self.tools)
        try:
            plain = self.facts.template.render(self.messages[:index], self.tools, add_generation_prompt=True)
            located = locate(self.facts.template.render(*marked, add_generation_prompt=True), plain, marker.parts)
        except RowError:
            return None
        if located is None or not located.points:
            return None
        spot, owner = located.points[-1]
        # The words before must be the same in both texts; an owner of an earlier part would make the tail too long.
        return plain[spot:] if owner == index - 1 else None

    def _check_blocks(self, index: int, span: Span) -> None:
        if not self.facts.template.has_generation_blocks:
            return
        own = [block for block in self.located.blocks if block[0] < span.end and block[1] > span.start]
        body = span.end - len(span.end_token or "")
        whole = own and all(left[1] == right[0] for left, right in pairwise(own))
        # A block may begin with the end of the prompt, which is given to the model and need not be learnt.
        starts = whole and (own[0][0] >= span.start or self._ends_prompt(self.text[own[0][0] : span.start]))
        if not starts or own[0][0] > span.start or own[-1][1] < body or self.text[span.end : own[-1][1]].strip():
            shown = ", ".join(_show(self.text[start:end]) for start, end in own) or "nothing"
            self.refuse(
                "generation-blocks",
                index,
                f"its turn is {_show(self.text[span.start : span.end])}, its blocks hold {shown}",
            )

    def _ends_prompt(self, text: str) -> bool:
        return any(prompt.endswith(text) for prompt in (self.prompt, *self.facts.other_prompts))


class UnmarkedTurns(Turns):
    """For templates that look at the content they write, so that marks would change it."""

    def __init__(self, facts: TemplateFacts, conversation: Conversation, text: str) -> None:
        super().__init__(facts, conversation, text)
        self.blocks = self._blocks() if facts.template.has_generation_blocks else None
        self.way = "prefixes" if self.blocks is None else "generation blocks"

    def _blocks(self) -> dict[int, tuple[int, int]] | None:
        """The generation block of each assistant message, if there is exactly one for each."""
        bracketed = self.facts.template.render(self.messages, self.tools, bracket_generation=True)
        located = locate(bracketed, self.text, [])
        assistants = [index for index, message in enumerate(self.messages) if message["role"] == "assistant"]
        if located is None or len(located.blocks) != len(assistants):
            return None
        return dict(zip(assistants, located.blocks, strict=True))

    def check_nothing_lost(self) -> int:
        for index, message in enumerate(self.messages):
            if message["role"] != "assistant" and message.get("content", "").strip() not in self.text:
                self.refuse("content-lost", index, f"the template does not write {_show(message['content'])}")
        for tool in self.tools or ():
            name = tool.get("function", tool).get("name", "")
            if name not in self.text:
                raise RowError("tools-lost", f"the chat template `{self.facts.source}` does not write the tools")
        return 0

    def span(self, index: int) -> Span:
        start, limit = self._region(index)
        last = start
        words = list(_words(self.messages[index]))
        if not words:
            self.refuse("empty-turn", index, "it is to be trained on, but it is empty")
        for word in words:
            at = self.text.find(word, last, limit)
            if at < 0:
                self.refuse("words-changed", index, f"{_show(word)} is not in its turn {_show(self.text[start:limit])}")
            last = at + len(word)
        if self.facts.first_end(self.text, start, last, calls=True):
            self.refuse("turns-mixed", index, "a turn ends among its words")
        return self.close(index, start, last, limit)

    def answer(self, index: int, span: Span) -> int:
        message = self.messages[index]
        if "reasoning_content" in message or "</think>" in message.get("content", ""):
            problem = "the template looks at the content it writes, so where its reasoning ends is not known"
            self.refuse("not-provable", index, problem)
        return span.start

    def _region(self, index: int) -> tuple[int, int]:
        """[start, limit) of the text that holds the message's turn and nothing of another."""
        prefix = self.prefix(index)
        if self.blocks is not None:
            start, end = self.blocks[index]
            has_prompt = self.prompt.strip() and self.text.endswith(self.prompt, 0, start)
            if has_prompt or (prefix is not None and len(prefix) == start):
                following = [block[0] for later, block in self.blocks.items() if later > index]
                return start, min(following, default=len(self.text))
            self.refuse(
                "generation-blocks", index, f"no generation prompt before its block {_show(self.text[start:end])}"
            )
        whole = self.facts.template.render(self.messages[: index + 1], self.tools)
        if prefix is None or not self.text.startswith(whole) or len(whole) < len(prefix):
            self.refuse(
                "not-provable",
                index,
                "the template looks at the content it writes, and its render up to here is no prefix of the whole",
            )
        return len(prefix), len(whole)


def _words(message: Message) -> Iterator[str]:
    """What an assistant's turn must hold, in order, when there are no marks: content, then calls by name."""
    content: str = message.get("content", "").strip()
    if "</think>" in content:
        content = content.rsplit("</think>", 1)[1].strip()
    if content:
        yield content
    for call in message.get("tool_calls", ()):
        yield call["function"]["name"]


def _show(text: str, width: int = 60) -> str:
    """A short quotation of `text` for a message, cut in the middle."""
    shown = text if len(text) <= width else f"{text[: width // 2]} ... {text[-width // 2 :]}"
    return repr(shown)
