"""Which model the recipe leaves its sizes to: a preset, or a Hugging Face config.json beside the recipe.

What the fields of a config.json mean is known to the runtime, which compares them again at launch; that one module of
it (standard library only) is loaded here by name.
"""

import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from .diagnostics import Diagnostic, Severity
from .loader import RecipeDocument
from .plan import FromConfig, Shape
from .presets import preset
from .schemas import leaves

RUNTIME = "sftc.runtime.hf.config"
FILE = "config.json"
ARGS = "megatron.args."


def find_shape(document: RecipeDocument, path: Path) -> tuple[Shape | None, list[Diagnostic]]:
    """The model that the recipe at `path` names, if it names one, and what is wrong with it."""
    model: Mapping[str, Any] = document.data["model"]
    if model.get("preset") is not None and model.get("hf") is not None:
        message = "`model.preset` and `model.hf` both give the sizes of the model"
        return None, [_report(document, "SFTC408", "model.hf", message, "keep one of the two")]
    if model.get("preset") is not None:
        return preset(model["preset"]), []
    if model.get("hf") is not None:
        return _from_config(document, path, model["hf"])
    return None, []


def _from_config(document: RecipeDocument, path: Path, name: str) -> tuple[Shape | None, list[Diagnostic]]:
    file, shown = path.parent / name, PurePosixPath(name)
    if file.is_dir():
        file, shown = file / FILE, shown / FILE
    try:
        text = file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        message = f"`{shown}` cannot be read: {reason}"
        return None, [_report(document, "SFTC461", "model.hf", message, "the path is relative to the recipe")]
    try:
        values = _read(text, shown, document.data["train"]["seq_length"])
    except ValueError as error:
        message, help = (*error.args, None)[:2]
        return None, [_report(document, "SFTC409", "model.hf", message, help)]
    found = list(_contradictions(document, values))
    return Shape(
        origin=FromConfig(),
        values={key: value for key, value in values.items() if not key.startswith(ARGS)},
        args={key.removeprefix(ARGS): value for key, value in values.items() if key.startswith(ARGS) and value},
        name=FILE,
        text=text,
    ), found


def _read(text: str, shown: PurePosixPath, seq_length: int) -> dict[str, Any]:
    """Values by recipe key. ValueError(message, help) for what no recipe can say."""
    knowledge = import_module(RUNTIME)
    try:
        config = json.loads(text)
        family = knowledge.family_of(config, shown)
        values: dict[str, Any] = knowledge.recipe_values(config, family, shown)
        unsayable: list[str] = knowledge.unsayable(config, family, seq_length)
        # Layers that all have experts leave this width unused, and Megatron wants a number.
        values.setdefault("model.ffn_hidden_size", config.get("intermediate_size"))
        if values["model.rotary_base"] != int(values["model.rotary_base"]):
            unsayable.append(f"`rope_theta: {values['model.rotary_base']}` (Megatron: whole numbers)")
    except knowledge.UserError as error:
        raise ValueError(error.message, error.help) from None
    except (ValueError, TypeError, AttributeError, ArithmeticError):
        raise ValueError(f"`{shown}` is no config.json of a model", "name one that transformers can load") from None
    if unsayable:
        raise ValueError(f"`{shown}` asks for what sftc cannot train: {'; '.join(unsayable)}", knowledge.OTHERS)
    values["model.rotary_base"] = int(values["model.rotary_base"])
    for key, schema in leaves():
        if key in values and not _fits(values[key], schema["type"]):
            raise ValueError(f"`{shown}` makes `{key}` {json.dumps(values[key])}, which no model has")
    return values


def _fits(value: Any, types: str | list[str]) -> bool:
    kind = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}.get(type(value))
    return kind in types or (kind == "integer" and "number" in types)


def _contradictions(document: RecipeDocument, values: Mapping[str, Any]) -> Iterator[Diagnostic]:
    """A line of the recipe that says other than config.json: one of the two is a slip."""
    for key, wanted in values.items():
        section, _, name = key.rpartition(".")
        node: Any = document.data
        for part in section.split("."):
            node = node.get(part) or {}
        if node.get(name) is not None and node[name] != wanted:
            there = "there is none" if wanted is None else f"it is {json.dumps(wanted)}"
            message = f"`{key}` is {json.dumps(node[name])} here, and by the config.json {there}"
            yield _report(document, "SFTC408", key, message, "leave the line out, or name another model in `model.hf`")


def _report(document: RecipeDocument, code: str, key: str, message: str, help: str | None) -> Diagnostic:
    pointer = "/" + key.replace(".", "/")
    return Diagnostic(
        code=code,
        severity=Severity.ERROR,
        message=message,
        span=document.places[pointer].value,
        pointer=pointer,
        help=help,
    )
