"""Chat templates, rendered as Hugging Face's `apply_chat_template` renders them; the only importer of jinja2.

A template is foreign code, so it runs in Jinja's immutable sandbox. Conventions (transformers, `chat_template_utils`):
`trim_blocks`, `lstrip_blocks`, loop controls, `{% generation %}`, a `tojson` that escapes no HTML and keeps non-ASCII,
`raise_exception`, `strftime_now`, and the special tokens as variables (`bos_token`, `eos_token`, ...).

One departure: `strftime_now` writes a fixed date. Prepared data is a function of its inputs, and the day on which it
happens to be prepared is none of them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..errors import UserError
from .formats import Message
from .rows import RowError

# The date that Llama 3's own template falls back to.
TEMPLATE_DATE = datetime(2024, 7, 26)

DICT_ATTRIBUTES = frozenset(dir(dict))

# Written around each generation block while spans are looked for: private-use characters of plane 16.
BLOCK_OPEN, BLOCK_CLOSE = "\U00100000", "\U00100001"


class _Generation(Extension):
    """`{% generation %} ... {% endgeneration %}`: transparent, or bracketed while the environment's flag is set."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own declaration has no ClassVar)

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        environment.extend(bracket_generation=False)

    def parse(self, parser: Parser) -> nodes.CallBlock:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        block = nodes.CallBlock(self.call_method("_block"), [], [], body)
        block.set_lineno(line)
        return block

    def _block(self, caller: Any) -> str:
        text: str = caller()
        return f"{BLOCK_OPEN}{text}{BLOCK_CLOSE}" if self.environment.bracket_generation else text  # type: ignore[attr-defined]


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with a short way for what templates do most: `message.content` of a plain dict.

    The answer is the same: an attribute that dict lacks is looked up as a key.
    """

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute not in DICT_ATTRIBUTES:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateText:
    """Template texts and where they were found: `default`, and `tool_use` if there is one for rows with tools."""

    source: str
    default: str
    tool_use: str | None = None

    @property
    def sha256(self) -> str:
        """Digest of all the text that can decide how a row is rendered."""
        return hashlib.sha256(json.dumps([self.default, self.tool_use]).encode()).hexdigest()


def find_template(tokenizer_path: Path, config: Mapping[str, Any], override: Path | None) -> TemplateText:
    """The template to use: the build dir's, else `chat_template.jinja` beside the tokenizer, else the configuration's.

    UserError if there is none.
    """
    for file in (override, tokenizer_path / "chat_template.jinja"):
        if file is not None and (file is override or file.is_file()):
            try:
                return TemplateText(
                    source=file.name if file is override else str(file), default=file.read_text("utf-8")
                )
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"the chat template `{file}` cannot be read: {error}") from None
    where = str(tokenizer_path / "tokenizer_config.json")
    match config.get("chat_template"):
        case str(text):
            return TemplateText(source=where, default=text)
        case list(named):
            texts = {item["name"]: item["template"] for item in named}
            default = texts.get("default", texts.get("tool_use"))
            if default is not None:
                return TemplateText(source=where, default=default, tool_use=texts.get("tool_use"))
    raise UserError(
        f"the tokenizer in `{tokenizer_path}` has no chat template",
        "name a template file in the recipe: `tokenizer.chat_template`",
    )


class ChatTemplate:
    """A compiled template. `special_tokens` are the variables it may use besides the conversation."""

    def __init__(self, text: TemplateText, special_tokens: Mapping[str, str]) -> None:
        self.text = text
        self.special_tokens = dict(special_tokens)
        self.has_generation_blocks = False
        self._environment = _environment()
        self._default = self._compile(text.default)
        self._tool_use = self._default if text.tool_use is None else self._compile(text.tool_use)

    def _compile(self, text: str) -> jinja2.Template:
        try:
            calls = self._environment.parse(text).find_all(nodes.CallBlock)
            self.has_generation_blocks |= any(isinstance(block.call.node, nodes.ExtensionAttribute) for block in calls)
            return self._environment.from_string(text)
        except jinja2.TemplateSyntaxError as error:
            raise UserError(
                f"the chat template `{self.text.source}` is malformed: line {error.lineno}: {error.message}"
            ) from None

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = False,
        bracket_generation: bool = False,
    ) -> str:
        """The text of a conversation; RowError with what the template says if it fails.

        With `bracket_generation`, BLOCK_OPEN and BLOCK_CLOSE stand around what generation blocks write.
        """
        template = self._tool_use if tools else self._default
        self._environment.bracket_generation = bracket_generation  # type: ignore[attr-defined]
        try:
            return template.render(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.special_tokens,
            )
        # Foreign code may fail in any way; whatever it is, it is about this row or this template.
        except Exception as error:
            said = str(error) or type(error).__name__
            raise RowError("template-failed", f"the chat template `{self.text.source}` says: {said}") from None


def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = TEMPLATE_DATE.strftime
    return environment


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The `tojson` filter."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
