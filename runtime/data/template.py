"""Chat templates, rendered as Hugging Face's `apply_chat_template` renders them; with the limits of `sandbox`.

A template is foreign code, so it runs in Jinja's immutable sandbox, within limits (`sandbox`).

Conventions (transformers, `chat_template_utils`):
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

from ..errors import UserError
from .formats import Message
from .rows import RowError
from .sandbox import LimitedEnvironment, TooLong

# The date that Llama 3's own template falls back to.
TEMPLATE_DATE = datetime(2024, 7, 26)

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
    """The template to use: the build dir's, else a file beside the tokenizer, else the configuration's.

    Such files are `chat_template.jinja`, with `additional_chat_templates/tool_use.jinja` for rows with tools, and the
    older `chat_template.json`. UserError if there is no template, or if one cannot be read.
    """
    if override is not None:
        return TemplateText(source=override.name, default=_read(override))
    file = tokenizer_path / "chat_template.jinja"
    if file.is_file():
        tool_use = tokenizer_path / "additional_chat_templates" / "tool_use.jinja"
        return TemplateText(
            source=str(file), default=_read(file), tool_use=_read(tool_use) if tool_use.is_file() else None
        )
    file = tokenizer_path / "chat_template.json"
    if file.is_file():
        try:
            config = json.loads(_read(file))
        except ValueError as error:
            raise UserError(f"the chat template `{file}` is no JSON: {error}") from None
        if not isinstance(config, dict):
            raise UserError(f"the chat template `{file}` is no JSON object")
    else:
        file = tokenizer_path / "tokenizer_config.json"
    match config.get("chat_template"):
        case str(text):
            return TemplateText(source=str(file), default=text)
        case list() | dict() as named:
            texts = _named(named, file)
            default = texts.get("default", texts.get("tool_use"))
            if default is not None:
                return TemplateText(source=str(file), default=default, tool_use=texts.get("tool_use"))
            raise UserError(
                f"`{file}` names the chat templates {', '.join(map(repr, texts))}; none is `default`",
                "name a template file in the recipe: `tokenizer.chat_template`",
            )
    raise UserError(
        f"the tokenizer in `{tokenizer_path}` has no chat template",
        "name a template file in the recipe: `tokenizer.chat_template`",
    )


def _named(named: Any, file: Path) -> dict[str, str]:
    """Template texts by name, from a list of objects or an object."""
    pairs = (
        named.items() if isinstance(named, dict) else [(_get(item, "name"), _get(item, "template")) for item in named]
    )
    texts = {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
    if len(texts) != len(named):
        raise UserError(f"`chat_template` in `{file}` is no list of named templates")
    return texts


def _get(item: Any, key: str) -> Any:
    return item.get(key) if isinstance(item, dict) else None


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the chat template `{file}` cannot be read: {error}") from None


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
            tree = self._environment.parse(text)
            calls = tree.find_all(nodes.CallBlock)
            self.has_generation_blocks |= any(isinstance(block.call.node, nodes.ExtensionAttribute) for block in calls)
            return self._environment.compile_limited(tree)
        except jinja2.TemplateSyntaxError as error:
            raise UserError(
                f"the chat template `{self.text.source}` is malformed: line {error.lineno}: {error.message}"
            ) from None
        # Blocks that are nested too deeply for Jinja (RecursionError) or for Python (SyntaxError), say.
        except Exception as error:
            problem = str(error) or type(error).__name__
            raise UserError(f"the chat template `{self.text.source}` cannot be compiled: {problem}") from None

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = False,
        bracket_generation: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of a conversation; RowError with what the template says if it fails, or what it exceeds; UserError
        if it uses up its time, which it would with every such row.

        With `bracket_generation`, BLOCK_OPEN and BLOCK_CLOSE stand around what generation blocks write. `variables` are
        further ones, which some templates read.
        """
        template = self._tool_use if tools else self._default
        self._environment.bracket_generation = bracket_generation  # type: ignore[attr-defined]
        self._environment.start()
        try:
            return template.render(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **{**self.special_tokens, **(variables or {})},
            )
        except TooLong as error:
            raise UserError(f"the chat template `{self.text.source}` loops: {error}", "use another template") from None
        # Foreign code may fail in any way; whatever it is, it is about this row or this template.
        except Exception as error:
            said = str(error) or type(error).__name__
            raise RowError("template-failed", f"the chat template `{self.text.source}` says: {said}") from None


def _environment() -> LimitedEnvironment:
    environment = LimitedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.add_filter("tojson", to_json)
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
