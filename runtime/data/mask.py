"""The supervised spans of a conversation's text, proven or refused.

One render gives the text. Where an assistant's turn begins and ends in it is found in the first of these ways that says
anything, and then it must hold; nothing is guessed:

1. marks: a second render shows which characters are data and whose (`marks`). The turn begins behind the last
   generation prompt before the message's own words, and ends with the first end-of-turn token behind them. Generation
   blocks, where the template has them, must name the same span.
2. generation blocks alone, one per assistant message, when marks change what the template writes.
3. prefixes: the render of the messages before it, with the generation prompt, and the render that includes it, must
   both be literal prefixes of the text.

What a span has passed: it starts right behind the generation prompt (or behind a literal render of the prompt); it
holds every word of the message once and unchanged, reasoning where the template keeps it; it holds no word of another
message; it ends with an end-of-turn token, with only white space between the last word and that token unless tool calls
are closed there. No special token comes from data (`plain`), and none is formed at the border of data.

Marks come first because they cost one render per conversation (and none where they have shown the same before, see
`skeleton`), where prefixes cost two per turn, and because they know
every character's owner. Prefixes prove less: templates that drop past reasoning are not stable under them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from .facts import TemplateFacts
from .formats import Conversation, Message
from .marks import MAX_PARTS, Located, Marker, locate, unmarked
from .plain import PlainEncoder, Tokens
from .rows import RowError
from .settings import LossOn
from .skeleton import Skeleton, Skeletons
from .template import ChatTemplate
from .tokens import TextTokenizer
from .turns import MarkedTurns, Span, Turns, UnmarkedTurns, Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A conversation's text with its supervised spans, in order. `lost_reasoning` counts messages whose reasoning the
    template left out, as many do for past turns. `tokens`, where there are some, are the tokens of the text, because
    the tokenizer alone would make special tokens of data.
    """

    text: str
    spans: tuple[Span, ...]
    way: Way
    lost_reasoning: int = 0
    tokens: Tokens | None = None


def supervised_messages(conversation: Conversation, loss_on: LossOn) -> list[int]:
    """Indices of the assistant messages to train on. A row's own marks come first; else `assistant` means all of them,
    `last_turn` those since the last message that is neither an assistant's nor a tool's. RowError if there is none.
    """
    roles = [message["role"] for message in conversation.messages]
    for index, (role, train) in enumerate(zip(roles, conversation.train, strict=True)):
        if train and role != "assistant":
            raise RowError(
                "bad-mark", f"message {index + 1} ({role}) is marked for training; only an assistant's can be"
            )
    assistants = [index for index, role in enumerate(roles) if role == "assistant"]
    chosen = set(assistants)
    if loss_on == "last_turn" and assistants:
        first = assistants[-1]
        while first > 0 and roles[first - 1] in ("assistant", "tool"):
            first -= 1
        chosen = {index for index in assistants if index >= first}
    marked = conversation.train
    wanted = [index for index in assistants if (index in chosen if marked[index] is None else marked[index])]
    if not wanted:
        raise RowError("nothing-to-train", "no assistant message is to be trained on")
    return wanted


class MaskFinder:
    """Renders conversations with `template` and finds what is supervised in them."""

    def __init__(self, template: ChatTemplate, tokenizer: TextTokenizer) -> None:
        self.template = template
        self.facts = TemplateFacts(template, tokenizer.special)
        self._tokenizer = tokenizer
        self._special = tokenizer.special
        self._plain: PlainEncoder | None = None
        self._skeletons = Skeletons()

    def render(self, conversation: Conversation, loss_on: LossOn, *, loss_on_reasoning: bool = True) -> Rendered:
        """The text and its proven spans, or RowError."""
        has_special = self._has_special_tokens(conversation)
        if loss_on == "all":
            if any(train is False for train in conversation.train):
                raise RowError("bad-mark", "a message is marked not to be trained, but `data.loss_on` is all")
            wanted = []
        else:
            wanted = supervised_messages(conversation, loss_on)
        conversation = self._with_tool_dialect(conversation)
        messages, tools = conversation.messages, conversation.tools
        text = self.template.render(messages, tools)
        if has_special:
            marker = Marker()
            self._refuse_special_tokens(marker.messages(messages), marker.tools(tools), unmarked)
        located = self._locate(messages, tools, text)
        if located is None or (has_special and located.data() is None):
            if has_special:
                self._refuse_special_tokens(messages, tools, str)
            turns: Turns = UnmarkedTurns(self.facts, conversation, text)
        else:
            turns = MarkedTurns(self.facts, conversation, text, located)
        lost_reasoning = turns.check_nothing_lost()
        if loss_on == "all":
            whole = (Span(start=0, end=len(text), end_token=None),)
            return Rendered(text=text, spans=whole, way="whole text", tokens=self._tokens(text, turns))
        spans = tuple(turns.span(index) for index in wanted)
        if not loss_on_reasoning:
            spans = tuple(
                replace(span, start=turns.answer(index, span)) for index, span in zip(wanted, spans, strict=True)
            )
        tokens = self._tokens(text, turns)
        return Rendered(text=text, spans=spans, way=turns.way, lost_reasoning=lost_reasoning, tokens=tokens)

    def _tokens(self, text: str, turns: Turns) -> Tokens | None:
        if not turns.literal:
            return None
        if self._plain is None:
            self._plain = PlainEncoder(self._tokenizer)
        return self._plain.encode(text, turns.literal)

    def _locate(self, messages: list[Message], tools: Any, text: str) -> Located | None:
        """Where each part stands; None if marks do not tell."""
        shape = None
        if not self.template.has_generation_blocks:  # a block may depend on the words that a shape leaves out
            marker = Marker(wordless=True)
            shape = self._skeletons.shape(messages, tools, marker)
            skeleton = None if shape is None else self._skeletons.find(shape)
            if skeleton is not None and (known := skeleton.fill(marker.parts, text)) is not None:
                return known
        marker = Marker()
        try:
            marked_messages, marked_tools = marker.messages(messages), marker.tools(tools)
        except ValueError:  # there are no characters left
            return None
        if len(marker.parts) > MAX_PARTS:
            return None
        try:
            marked = self.template.render(marked_messages, marked_tools, bracket_generation=True)
        except RowError:
            return None
        located = locate(marked, text, marker.parts)
        if shape is not None and located is not None and (skeleton := Skeleton.of(located, text)) is not None:
            self._skeletons.keep(shape, skeleton)
        return located

    def _with_tool_dialect(self, conversation: Conversation) -> Conversation:
        if not any("tool_calls" in message for message in conversation.messages):
            return conversation
        dialect = self.facts.tool_dialect
        if dialect is None:
            raise RowError("tool-calls-lost", f"the chat template `{self.facts.source}` does not write tool calls")
        messages = dialect.apply(conversation.messages)
        return Conversation(messages=messages, train=conversation.train, tools=conversation.tools)

    def _has_special_tokens(self, conversation: Conversation) -> bool:
        values = [value for message in conversation.messages for value in _strings(message)]
        return self._special.search("\0".join([*values, *_strings(conversation.tools)])) is not None

    def _refuse_special_tokens(self, messages: list[Message], tools: Any, left: Callable[[str], str]) -> None:
        """RowError for special-token text in what `left` leaves of any text: where that is written is unknown."""
        for place, data in [*((f"message {index + 1}", m) for index, m in enumerate(messages)), ("`tools`", tools)]:
            for value in _strings(data):
                if match := self._special.search(left(value)):
                    raise RowError(
                        "special-token",
                        f"{place} contains the text of the special token `{match.group()}` where it cannot be followed",
                    )


def _strings(value: Any) -> Iterator[str]:
    """Every string in JSON data, keys included."""
    match value:
        case str():
            yield value
        case dict():
            for key, item in value.items():
                yield key
                yield from _strings(item)
        case list():
            for item in value:
                yield from _strings(item)
