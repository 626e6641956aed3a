"""Jinja's immutable sandbox with limits of time and size, for code that came with a download.

Jinja has no `while`, but nested loops and macros that call themselves can run for ever, and a string can be doubled
until the memory is full. So a clock is read at every turn of a loop and every call, and everything that makes long text
is measured: before it is made where one step can multiply (`*`, `replace`, `join`, widths), after it where it can only
add. All of this is ordinary Python in the rendering thread: it holds in the main thread, in others, and in worker
processes alike.

Time is that of the thread, so a busy or sleeping machine fails no template. What is left uncovered is a single filter
over text of nearly the permitted size; those of Jinja are linear, or nearly so.
"""

import functools
import re
import time
from collections.abc import Callable, Iterable
from itertools import islice
from types import BuiltinMethodType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

SECONDS = 10.0  # of the thread's own time, for one render
CHARACTERS = 1 << 26  # of one text; an item of a list counts as ITEM
TOTAL_CHARACTERS = 1 << 29  # of all texts that one render makes by joining and repeating
ITEM = 8
HANDFUL = 100
WIDTH = 1 << 16  # a number that says how wide, how deep or how many
BITS = 1 << 12  # of a whole number

DICT_ATTRIBUTES = frozenset(dir(dict))
# Methods of a text whose result is no longer than the text.
SHORTENING = frozenset({"startswith", "endswith", "strip", "lstrip", "rstrip", "split", "rsplit", "find", "count"})
WIDTH_METHODS = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "to_bytes"})
WIDTH_FILTERS = frozenset({"center", "indent", "wordwrap", "tojson", "batch", "slice", "round"})
# Widths in formats: long numbers, or numbers that are taken from the arguments.
WIDE_PERCENT = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(?:[0-9]{5}|[0-9]*\.[0-9]{5}|[0-9]*\.?\*)")
WIDE_BRACES = re.compile(r"\{[^{}]*(?:[0-9]{5}|\{)")


class TooLong(Exception):
    """The template has used up its time."""


class TooLarge(Exception):
    """The template makes a text, list or number beyond the limits."""


class _Code(CodeGenerator):
    """Jinja's compiler, with `~` as a measured call instead of a bare join."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.join_values((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox. `start` begins the time and the size that one render may take.

    TooLong and TooLarge come out of `render`. `lipsum` and `random` are not there: what they write is no function of
    the template's inputs. Namespaces take no underscored names, which reach Python's internals.
    """

    code_generator_class = _Code
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._plain_attributes: dict[tuple[type, str], bool] = {}
        self.start()
        del self.globals["lipsum"], self.filters["random"]
        self.globals |= {"dict": _make_dict, "namespace": _SafeNamespace}
        for name, function in list(self.filters.items()):
            self.add_filter(name, function)

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """Make `function` a filter, measured."""
        self.filters[name] = self._measured(name, function)

    def start(self) -> None:
        """Begin the account of a render."""
        # The thread's clock costs a system call, so it is first read when a tenth of the time has passed.
        self._began: float | None = None
        self._next_look = time.monotonic() + SECONDS / 10
        self._made = 0

    def compile_limited(self, tree: nodes.Template) -> jinja2.Template:
        """Compile what `parse` gave; `tree` is changed."""
        for loop in tree.find_all(nodes.For):
            # An expression whose value is thrown away: the property `tick`, read at each turn.
            loop.body.insert(0, nodes.ExprStmt(nodes.EnvironmentAttribute("tick")))
        return self.from_string(tree)

    @property
    def tick(self) -> None:
        """Look at the clock; TooLong if the time is used up."""
        if time.monotonic() > self._next_look:
            now = time.thread_time()
            if self._began is None:
                self._began = now
            elif now - self._began > SECONDS:
                raise TooLong(f"it has not ended after {SECONDS:g} seconds of computing")
            self._next_look = time.monotonic() + SECONDS / 10

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As Jinja's, with a short way for what templates do most: `message.content` of a plain dict.

        The answer is the same: an attribute that dict lacks is looked up as a key.
        """
        if type(obj) is dict and attribute not in DICT_ATTRIBUTES:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        kind = type(obj), attribute
        if kind not in self._plain_attributes:
            # Of these types Jinja's verdict depends on the type and the name alone.
            is_plain = type(obj) in PLAIN_TYPES and attribute not in ("format", "format_map")
            self._plain_attributes[kind] = is_plain and self.is_safe_attribute(obj, attribute, None)
        if self._plain_attributes[kind]:
            try:
                return getattr(obj, attribute)
            except AttributeError:
                pass
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """The safe stand-in for the methods `format` and `format_map` of a text."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_format(WIDE_BRACES, str(value.__self__).replace("{{", "").replace("}}", ""))
        return wrapped

    def concat(self, parts: Iterable[str]) -> str:
        """Join what a template, a macro or a block has written."""
        kept: list[str] = []
        length = 0
        pieces = iter(parts)
        # Measured while a loop still writes, a handful at a time.
        while handful := list(islice(pieces, HANDFUL)):
            kept += handful
            length += sum(map(len, handful))
            if length > CHARACTERS:
                break
        self._weigh(length)
        return "".join(kept)

    def join_values(self, values: Iterable[Any]) -> str:
        """The operator `~`."""
        texts = [str(value) for value in values]
        self._weigh(sum(map(len, texts)))
        return "".join(texts)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`+`, `*`, `**` and `%`, measured first."""
        if operator == "+" and type(left) is str and type(right) is str:
            self._weigh(len(left) + len(right))
            return left + right
        sizes = _size(left), _size(right)
        if operator == "+" and None not in sizes:
            self._weigh((sizes[0] or 0) + (sizes[1] or 0))
        elif operator == "*":
            if isinstance(left, int) and isinstance(right, int):
                _check_bits(left.bit_length() + right.bit_length())
            for size, times in (sizes[0], right), (sizes[1], left):
                if size is not None and isinstance(times, int):
                    self._weigh(size * max(times, 0))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() * abs(right))
        elif operator == "%" and isinstance(left, str | bytes):
            _check_format(WIDE_PERCENT, str(left))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Calls, methods of texts measured first."""
        _ = self.tick
        owner = getattr(obj, "__self__", None)
        if type(owner) is str and type(obj) is BuiltinMethodType and obj.__name__ in SHORTENING:
            # Variables of the place of the call, which Jinja passes along; see its `Context.call`.
            kwargs.pop("_loop_vars", None)
            kwargs.pop("_block_vars", None)
            return obj(*args, **kwargs)
        if isinstance(owner, (str, bytes, int)):
            self._check_method(owner, obj.__name__, args, kwargs)
        result = super().call(context, obj, *args, **kwargs)
        if isinstance(result, str):
            self._weigh(len(result))
        return result

    def _check_method(self, owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = (*args, *kwargs.values())
        if name in WIDTH_METHODS:
            _check_widths(given)
            if name == "expandtabs":
                self._weigh(owner.count("\t" if isinstance(owner, str) else b"\t") * max((8, *given)))
        elif name == "translate":
            raise TooLarge("it calls `translate`, whose result cannot be measured first")
        elif name == "replace" and len(args) > 1:
            self._check_replace(owner, args[0], args[1])
        elif name == "join" and len(args) == 1 and isinstance(args[0], list | tuple | str):
            self._weigh(_joined(args[0], len(owner)))

    def _check_replace(self, text: Any, old: Any, new: Any) -> None:
        if all(isinstance(value, str) for value in (text, old, new)):
            self._weigh(len(text) + text.count(old) * len(new))

    def _weigh(self, length: int) -> None:
        """Account for a text of `length` characters that is being made; TooLarge if it is too much."""
        self._made += length
        if length > CHARACTERS or self._made > TOTAL_CHARACTERS:
            raise TooLarge(
                f"it makes text of more than {CHARACTERS if length > CHARACTERS else TOTAL_CHARACTERS:,} characters"
            )

    def _measured(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Filter `function`, its arguments measured before and its result after.

        The wrapper keeps the attributes by which Jinja knows that a filter wants the environment or a context first.
        """
        skip = 1 if hasattr(function, "jinja_pass_arg") else 0

        @functools.wraps(function)
        def filtered(*args: Any, **kwargs: Any) -> Any:
            _ = self.tick
            given = args[skip:]
            if name in WIDTH_FILTERS:
                _check_widths((*given[1:], *kwargs.values()))
            if name in ("indent", "wordwrap"):
                places = str(given[0]).count("\n") if name == "indent" else len(str(given[0]))
                self._weigh(places * max((_size(value) or 0 for value in (*given[1:], *kwargs.values())), default=0))
            if name == "format":
                _check_format(WIDE_PERCENT, str(given[0]))
            if name == "replace" and len(given) > 2:
                self._check_replace(*(str(value) for value in given[:3]))
            if name in ("join", "sum"):
                items = given[0] if isinstance(given[0], list | tuple | str) else list(given[0])
                args = (*args[:skip], items, *args[skip + 1 :])
                glue = next((len(value) for value in (*given[1:], *kwargs.values()) if isinstance(value, str)), 0)
                self._weigh(_joined(items, glue))
            result = function(*args, **kwargs)
            if isinstance(result, str):
                self._weigh(len(result))
            return result

        return filtered


class _SafeNamespace(Namespace):
    # No named `self`, so that a template may write `namespace(self=...)`.
    def __init__(*args: Any, **kwargs: Any) -> None:
        values = dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


PLAIN_TYPES = frozenset({str, int, list, LoopContext, _SafeNamespace})


def _check_name(name: Any) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"a namespace takes no name that begins with an underscore, as {name!r} does")


def _make_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _size(value: Any) -> int | None:
    match value:
        case str() | bytes():
            return len(value)
        case list() | tuple():
            return ITEM * len(value)
        case _:
            return None


def _joined(items: Iterable[Any], glue: int) -> int:
    """Characters of `items` joined, or the number of their items."""
    return sum((_size(item) or 1) + glue for item in items)


def _check_widths(values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, int) and abs(value) > WIDTH:
            raise TooLarge(f"it wants a width or a number of {value:,}; {WIDTH:,} is the most")


def _check_format(wide: re.Pattern[str], text: str) -> None:
    if wide.search(text):
        raise TooLarge("it formats with a width that is not plain and small")


def _check_bits(bits: int) -> None:
    if bits > BITS:
        raise TooLarge(f"it makes a number of {bits:,} bits")
