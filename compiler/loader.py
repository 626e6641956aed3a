"""Text to plain data, with the place of every key and value; the only importer of ruamel.

Works on ruamel's events, not on its objects: marks and raw words are exact there, nothing is expanded, and which bare
word is which value is decided in `scalars`. Knows YAML and nothing of what a recipe may say.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
)

from .diagnostics import Diagnostic, Related, Severity, Span
from .pointers import join
from .scalars import Scalar, resolve_plain
from .source import UNSEEN, SourceFile
from .yaml_errors import syntax_error

MAX_DEPTH = 32

_SHAPE = "write `section:` and below it indented `key: value` lines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a value stands; `key` is None for the root and for items of a list."""

    key: Span | None
    value: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One text that a recipe is made of: a base, the recipe itself, or the overrides of the command line.

    `label` is what artifacts call it, a base by its path relative to the recipe; None is the recipe. `data` is what it
    says by itself. Compile-time paths in it start from `folder`.
    """

    source: SourceFile
    label: str | None
    data: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeDocument:
    """A recipe as plain data (dict, list, str, int, float, bool, None).

    `places` has one entry for every value, by JSON pointer. `broken` holds the pointers of values that have been
    reported already: later stages say nothing about them. `<mapping>/<<` stands for keys that a mapping would have, had
    what was refused been read: a merge key, a second document. `layers` are what `data` was merged from, the lowest
    first; a document that is one text alone has none.
    """

    source: SourceFile
    data: dict[str, Any]
    places: Mapping[str, Place]
    broken: frozenset[str] = frozenset()
    layers: tuple[Layer, ...] = ()

    @property
    def bases(self) -> tuple[Layer, ...]:
        """The recipes below this one, the lowest first."""
        labels = [layer.label for layer in self.layers]
        return self.layers[: labels.index(None)] if labels else ()

    def layer(self, span: Span) -> Layer | None:
        """The layer that `span` lies in."""
        return next((layer for layer in self.layers if layer.source.name == span.file), None)

    def text(self, span: Span) -> str:
        """What stands at `span`, in whichever layer."""
        layer = self.layer(span)
        return (layer.source if layer else self.source).slice(span)


def load(source: SourceFile) -> tuple[RecipeDocument | None, list[Diagnostic]]:
    """Read the one document in `source`.

    A document together with errors means that the rest of it can still be checked; without a document the text
    is not a recipe at all.
    """
    intake = _Intake(source=source, events=YAML(typ="safe", pure=True).parse(source.text))
    try:
        data = intake.document()
    except MarkedYAMLError as error:
        return None, [*intake.diagnostics, syntax_error(error, source)]
    except _TooDeepError as error:
        return None, [*intake.diagnostics, error.diagnostic]
    except YAMLError as error:  # the reader's own: a character that read_source refuses, or a bad %YAML line
        intake.report("SFTC110", f"not YAML: {error}", intake.span_at(0))
        return None, intake.diagnostics
    if data is None:
        return None, intake.diagnostics
    document = RecipeDocument(source=source, data=data, places=intake.places, broken=frozenset(intake.broken))
    return document, intake.diagnostics


class _TooDeepError(Exception):
    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


@dataclass(slots=True, kw_only=True)
class _Intake:
    """One pass over the events. A pointer of None marks a value that is read for its errors only."""

    source: SourceFile
    events: Iterator[Event]
    places: dict[str, Place] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    ink_end: int = 0  # offset behind the last event that took up text

    def document(self) -> dict[str, Any] | None:
        next(self.events)  # the stream's start
        start = next(self.events)
        if not isinstance(start, DocumentStartEvent):
            self.report("SFTC107", "the recipe is empty", self.span_at(0), help=_SHAPE)
            return None
        self._directives(start)
        root = next(self.events)
        value, span = self._value(root, "", 0)
        next(self.events)  # the document's end
        after = next(self.events)
        if isinstance(after, DocumentStartEvent):
            first = Related(message="the recipe starts here", span=span)
            self.report(
                "SFTC112",
                "a second document starts here",
                self._span(after),
                help="keep one recipe in a file",
                related=(first,),
            )
            self.broken.add(join("", "<<"))
        if isinstance(value, dict):
            self.places[""] = Place(key=None, value=span)
            return value
        if isinstance(root, ScalarEvent) and root.value == "" and root.style is None:
            self.report("SFTC107", "the recipe is empty", span, help=_SHAPE)
        elif "" not in self.broken or isinstance(value, list):
            kind = "a list" if isinstance(value, list) else "a single value"
            self.report("SFTC108", f"the recipe is {kind}, not a mapping", span, help=_SHAPE)
        return None

    def report(
        self,
        code: str,
        message: str,
        span: Span,
        *,
        pointer: str | None = None,
        help: str | None = None,
        related: tuple[Related, ...] = (),
    ) -> None:
        self.diagnostics.append(
            Diagnostic(
                code=code,
                severity=Severity.ERROR,
                message=message,
                span=span,
                pointer=pointer,
                help=help,
                related=related,
            )
        )

    def span_at(self, start: int, end: int | None = None) -> Span:
        """The span of the text from offset `start` to `end`."""
        (line, column), (end_line, end_column) = (self._position(at) for at in (start, start if end is None else end))
        return Span(file=self.source.name, line=line, column=column, end_line=end_line, end_column=end_column)

    def _position(self, at: int) -> tuple[int, int]:
        text = self.source.text
        return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)

    def _span(self, event: Event) -> Span:
        start, end = event.start_mark, event.end_mark
        return Span(
            file=self.source.name,
            line=start.line + 1,
            column=start.column + 1,
            end_line=end.line + 1,
            end_column=end.column + 1,
        )

    def _value(self, event: Event, pointer: str | None, depth: int) -> tuple[Any, Span]:
        if depth > MAX_DEPTH:
            message = f"the nesting is deeper than {MAX_DEPTH} levels"
            raise _TooDeepError(
                Diagnostic(code="SFTC106", severity=Severity.ERROR, message=message, span=self._span(event))
            )
        if isinstance(event, AliasEvent):
            return self._alias(event, pointer)
        self._anchor(event, pointer)
        if isinstance(event, MappingStartEvent):
            return self._mapping(event, pointer, depth)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(event, pointer, depth)
        assert isinstance(event, ScalarEvent), event
        return self._scalar(event, pointer)

    def _mapping(self, event: MappingStartEvent, pointer: str | None, depth: int) -> tuple[dict[str, Any], Span]:
        self._tag(event, pointer)
        data: dict[str, Any] = {}
        keys: dict[str, Span] = {}
        last = self._span(event)
        self.ink_end = event.end_mark.index
        while not isinstance(inner := next(self.events), CollectionEndEvent):
            key, key_span = self._key(inner, pointer, depth)
            child = None if key is None or key in keys or pointer is None else join(pointer, key)
            if key is not None and key in keys:
                first = Related(message="first given here", span=keys[key])
                self.report(
                    "SFTC114",
                    f"the key `{key}` is given twice",
                    key_span,
                    pointer=None if pointer is None else join(pointer, key),
                    help="remove one of the two",
                    related=(first,),
                )
            value, last = self._value(next(self.events), child, depth + 1)
            if key is not None and key not in keys:
                data[key] = value
                keys[key] = key_span
            if child is not None:
                self.places[child] = Place(key=key_span, value=last)
        return data, self._collection_span(event, inner, last)

    def _sequence(self, event: SequenceStartEvent, pointer: str | None, depth: int) -> tuple[list[Any], Span]:
        self._tag(event, pointer)
        items: list[Any] = []
        last = self._span(event)
        self.ink_end = event.end_mark.index
        while not isinstance(inner := next(self.events), CollectionEndEvent):
            child = None if pointer is None else join(pointer, len(items))
            value, last = self._value(inner, child, depth + 1)
            items.append(value)
            if child is not None:
                self.places[child] = Place(key=None, value=last)
        return items, self._collection_span(event, inner, last)

    def _collection_span(self, start: Event, end: Event, last: Span) -> Span:
        """From bracket to bracket, or from the first to the last item: the end mark of a block lies lines below."""
        whole = self._span(start)
        if end.end_mark.index > end.start_mark.index:
            self.ink_end = end.end_mark.index
            last = self._span(end)
        return Span(
            file=whole.file,
            line=whole.line,
            column=whole.column,
            end_line=last.end_line,
            end_column=last.end_column,
        )

    def _scalar(self, event: ScalarEvent, pointer: str | None) -> tuple[Scalar, Span]:
        text: str = event.value
        if event.start_mark.index == event.end_mark.index:  # ruamel places it at the next token, lines below
            end = self._last_ink(event.start_mark.index)
            span = self.span_at(end)
        else:
            self.ink_end = event.end_mark.index
            span = self._span(event)
        if self._tag(event, pointer):
            self._break(pointer)
            return None, span
        if event.style is not None:
            self._unseen(text, span, pointer)
            return text, span
        value, refusal = resolve_plain(text)
        if refusal is not None:
            self.report(refusal.code, refusal.message, span, pointer=pointer, help=refusal.help)
            self._break(pointer)
        return value, span

    def _last_ink(self, stop: int) -> int:
        """The offset behind the last character before `stop` that is neither blank nor in a comment."""
        end = at = self.ink_end
        text = self.source.text
        while at < stop:
            if text[at] == "#" and (at == 0 or text[at - 1].isspace()):
                at = text.find("\n", at, stop)
                if at < 0:
                    break
            elif not text[at].isspace():
                end = at + 1
            at += 1
        return end

    def _key(self, event: Event, pointer: str | None, depth: int) -> tuple[str | None, Span]:
        """The key and its span; None for a key that is no word, which has been reported then."""
        if not isinstance(event, ScalarEvent):
            value, span = self._value(event, None, depth + 1)
            if not isinstance(event, AliasEvent):
                kind = "list" if isinstance(value, list) else "mapping"
                help = "use a plain word"
                if kind == "mapping":  # `{{ x }}`, which was to be text
                    help = "put the text in quotes: `{{ ... }}` is no placeholder here"
                    self._break(pointer or None)
                self.report("SFTC115", f"a {kind} stands in the place of a key", span, help=help)
            return None, span
        self._anchor(event, None)
        text: str = event.value
        self.ink_end = max(self.ink_end, event.end_mark.index)
        span = self._span(event)
        if self._tag(event, None):
            return None, span
        if event.style is not None:
            return None if self._unseen(text, span, None) else text, span
        if text == "<<":
            self.report("SFTC117", "the merge key `<<` is not allowed", span, help="write the keys out")
            if pointer is not None:
                self.broken.add(join(pointer, "<<"))
            return None, span
        value, refusal = resolve_plain(text)
        if isinstance(value, str) or (refusal is not None and refusal.code == "SFTC120"):
            return text, span
        shown = f"`{text}`" if text else "an empty key"
        self.report("SFTC115", f"{shown} is not a word", span, help=f'write `"{text}"` if you mean the text')
        return None, span

    def _alias(self, event: AliasEvent, pointer: str | None) -> tuple[None, Span]:
        span = self._span(event)
        self.ink_end = event.end_mark.index
        name = self.source.slice(span)
        help = f'write the value itself, or `"{name}"` if you mean the text'
        self.report("SFTC116", f"the alias `{name}` is not allowed", span, pointer=pointer, help=help)
        self._break(pointer)
        return None, span

    def _anchor(self, event: Event, pointer: str | None) -> None:
        name = getattr(event, "anchor", None)
        if name is None:
            return
        start = self.source.text.find(f"&{name}", event.start_mark.index)
        span = self.span_at(start, start + len(name) + 1)
        self.report(
            "SFTC116", f"the anchor `&{name}` is not allowed", span, pointer=pointer, help="write the value where used"
        )

    def _tag(self, event: MappingStartEvent | SequenceStartEvent | ScalarEvent, pointer: str | None) -> bool:
        """Reports an explicit tag, and whether there was one."""
        if event.ctag is None:
            return False
        text = self.source.text
        start = text.find("!", event.start_mark.index)
        end = start
        while end < len(text) and not text[end].isspace():
            end += 1
        tag, span = text[start:end], self.span_at(start, end)
        self.report("SFTC118", f"the tag `{tag}` is not allowed", span, pointer=pointer, help="write a plain value")
        return True

    def _unseen(self, text: str, span: Span, pointer: str | None) -> bool:
        """Reports an escape in double quotes that spells what the source may not hold, and whether there was one."""
        character = UNSEEN.search(text)
        if character is None:
            return False
        message = f"the text holds the invisible character U+{ord(character[0]):04X}"
        self.report("SFTC104", message, span, pointer=pointer, help="remove the escape")
        self._break(pointer)
        return True

    def _break(self, pointer: str | None) -> None:
        if pointer is not None:
            self.broken.add(pointer)

    def _directives(self, start: DocumentStartEvent) -> None:
        for number, line in enumerate(self.source.text.split("\n")[: start.start_mark.line]):
            if line.startswith("%"):
                name = line.split()[0]
                span = Span(
                    file=self.source.name,
                    line=number + 1,
                    column=1,
                    end_line=number + 1,
                    end_column=len(line.rstrip()) + 1,
                )
                self.report("SFTC113", f"the directive `{name}` is not allowed", span, help="remove the line")
