"""What a chat template does, found out once by rendering small probes.

Its generation prompt, the tokens that end a turn, and how it wants tool calls.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Literal

from ..errors import UserError
from .formats import Message
from .rows import RowError
from .template import ChatTemplate, to_json

QUESTION, ANSWER = "What is the probe?", "This is the probe."
ASK: Message = {"role": "user", "content": QUESTION}
REPLY: Message = {"role": "assistant", "content": ANSWER}
FUNCTION, KEY, VALUE = "probe_function", "probe_key", "probe value"
CALL: Message = {
    "role": "assistant",
    "tool_calls": [
        # Nine characters, letters and digits: some templates insist.
        {"id": "probe0001", "type": "function", "function": {"name": FUNCTION, "arguments": {KEY: VALUE}}}
    ],
}
RESULT: Message = {"role": "tool", "tool_call_id": "probe0001", "name": FUNCTION, "content": "probe result"}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        # Another name and key than those of the call, which are looked for in what the template writes.
        "name": "another_tool",
        "description": "Probes.",
        "parameters": {"type": "object", "properties": {"argument": {"type": "string"}}, "required": ["argument"]},
    },
}

# The variables by which templates are told whether a model shall think.
THINKING = ("enable_thinking", "thinking")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDialect:
    """How messages with tool calls have to look: `content` that is absent is left out, an empty string or null, and
    arguments are given as an object or as JSON text.
    """

    content: Literal["absent", "empty", "null"]
    arguments: Literal["object", "text"]

    def apply(self, messages: Sequence[Message]) -> list[Message]:
        """The messages, those with tool calls rewritten."""
        return [self._rewrite(message) if "tool_calls" in message else message for message in messages]

    def _rewrite(self, message: Message) -> Message:
        calls = message["tool_calls"]
        if self.arguments == "text":
            calls = [
                {**call, "function": {**call["function"], "arguments": to_json(call["function"]["arguments"])}}
                for call in calls
            ]
        message = {**message, "tool_calls": calls}
        if self.content != "absent":
            message.setdefault("content", "" if self.content == "empty" else None)
        return message


class TemplateFacts:
    """Facts about `template`; `special` finds the tokenizer's special tokens. UserError if the template cannot render a
    question and an answer, or writes no token at the end of an answer.
    """

    def __init__(self, template: ChatTemplate, special: re.Pattern[str]) -> None:
        self.template = template
        self.special = special
        self.source = template.text.source
        try:
            self.generation_prompt = self._generation_prompt({})
            self.end_tokens = self._end_tokens()
        except RowError as error:
            raise UserError(error.message, "the template must render a user message and an assistant message") from None

    @cached_property
    def other_prompts(self) -> tuple[str, ...]:
        """The prompts that the template has besides, in which a model is told to think or not to; the longest first."""
        found = set()
        for name, value in product(THINKING, (False, True)):
            try:
                found.add(self._generation_prompt({name: value}))
            except RowError:
                continue
        return tuple(sorted((text for text in found - {self.generation_prompt} if text.strip()), key=len, reverse=True))

    def _generation_prompt(self, variables: dict[str, Any]) -> str:
        """What `add_generation_prompt` adds, from the border of a token on; empty for templates that ignore it."""
        plain = self.template.render([ASK], variables=variables)
        prompted = self.template.render([ASK], add_generation_prompt=True, variables=variables)
        pairs = enumerate(zip(plain, prompted, strict=False))
        border = next((at for at, (left, right) in pairs if left != right), min(len(plain), len(prompted)))
        # `<|end|>` and `<|assistant|>` share two characters, which belong to neither prompt.
        for match in self.special.finditer(prompted):
            if match.start() < border < match.end():
                border = match.start()
        return prompted[border:]

    def _end_tokens(self) -> frozenset[str]:
        """The special tokens that end an assistant's turn.

        One stands behind the answer at the end of a conversation. Another one, in the middle, counts if it also stands
        between a question and the generation prompt: else it may be the header of what comes next.
        """
        text = self.template.render([ASK, REPLY])
        if ANSWER not in text:
            raise UserError(
                f"the chat template `{self.source}` does not write an answer that is plain text",
                "use a template for text; some of those for pictures want lists of parts",
            )
        final = self._first_after(text, ANSWER)
        if final is None:
            raise UserError(
                f"the chat template `{self.source}` writes no special token right behind an answer, so nothing would "
                "teach the model to stop",
                "use a template that ends each assistant message with the tokenizer's end-of-turn token",
            )
        tokens = {final}
        try:
            longer = self.template.render([ASK, REPLY, ASK, REPLY])
        except RowError:
            return frozenset(tokens)
        middle = self._first_after(longer, ANSWER)
        if middle is not None and middle != final and middle not in self.generation_prompt:
            prompted = self.template.render([ASK], add_generation_prompt=True)
            between = prompted[prompted.rfind(QUESTION) + len(QUESTION) :]
            if between.removesuffix(self.generation_prompt).strip() == middle:
                tokens.add(middle)
        return frozenset(tokens)

    def _first_after(self, text: str, words: str) -> str | None:
        """The special token right behind the first `words`, with nothing but white space in between."""
        at = text.find(words)
        if at < 0:
            return None
        match = self.special.search(text, at + len(words))
        return match.group() if match and not text[at + len(words) : match.start()].strip() else None

    @cached_property
    def tool_dialect(self) -> ToolDialect | None:
        """The first way in which the template writes a tool call's name and arguments as JSON text or plain; None if it
        writes them in none.
        """
        contents: tuple[Literal["absent", "empty", "null"], ...] = ("absent", "empty", "null")
        arguments: tuple[Literal["object", "text"], ...] = ("object", "text")
        for style, content in product(arguments, contents):
            dialect = ToolDialect(content=content, arguments=style)
            text = self._render_call(dialect, [RESULT, REPLY])
            # Quotes of Python, or escaped ones, are what is left of an object or a text that was converted wrongly.
            wrong = (f"'{KEY}'", f'\\"{KEY}\\"')
            if (
                text is not None
                and all(word in text for word in (FUNCTION, KEY, VALUE))
                and not any(w in text for w in wrong)
            ):
                return dialect
        return None

    @cached_property
    def call_end_tokens(self) -> frozenset[str]:
        """`end_tokens`, and the token that ends a turn with a tool call where that is another one."""
        text = None if self.tool_dialect is None else self._render_call(self.tool_dialect, [])
        if text is None:
            return self.end_tokens
        tail = text[text.rfind(VALUE) + len(VALUE) :]
        found = list(self.special.finditer(tail))
        if not found or any(match.group() in self.end_tokens for match in found) or tail[found[-1].end() :].strip():
            return self.end_tokens
        return self.end_tokens | {found[-1].group()}

    def first_end(self, text: str, start: int, end: int, *, calls: bool) -> tuple[int, int] | None:
        """The first end-of-turn token in [start, end) of `text`, as a span."""
        tokens = self.call_end_tokens if calls else self.end_tokens
        for match in self.special.finditer(text, start, end):
            if match.group() in tokens:
                return match.span()
        return None

    def _render_call(self, dialect: ToolDialect, rest: list[Message]) -> str | None:
        messages = dialect.apply([ASK, CALL, *rest])
        choices: tuple[list[dict[str, Any]] | None, ...] = (None, [TOOL])
        for tools in choices:
            try:
                text = self.template.render(messages, tools)
            except RowError:
                continue
            if FUNCTION in text:
                return text
        return None
