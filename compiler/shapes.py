"""Which model the recipe leaves its sizes to: a preset, or a Hugging Face config.json beside the recipe.

What the fields of a config.json mean is known to the runtime, which compares them again at launch; that one module of
it (standard library only) is loaded here by name.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from .diagnostics import Diagnostic, Severity
from .layers import start_of
from .loader import RecipeDocument
from .plan import FromConfig, Shape
from .presets import preset
from .reach import reach
from .schemas import leaves

FILE = "config.json"
ARGS = "megatron.args."


def find_shape(document: RecipeDocument) -> tuple[Shape | None, list[Diagnostic]]:
    """The model that the recipe names, if it names one, and what is wrong with it."""
    model: Mapping[str, Any] = document.data["model"]
    if model.get("preset") is not None and model.get("hf") is not None:
        message = "`model.preset` and `model.hf` both give the sizes of the model"
        return None, [_report(document, "SFTC408", "model.hf", message, "keep one of the two")]
    if model.get("preset") is not None:
        return preset(model["preset"]), []
    if model.get("hf") is not None:
        return _from_config(document, model["hf"])
    return None, []


def _from_config(document: RecipeDocument, name: str) -> tuple[Shape | None, list[Diagnostic]]:
    folder, start = start_of(document, "/model/hf")
    file, shown = folder / name, PurePosixPath(name)
    if file.is_dir():
        file, shown = file / FILE, shown / FILE
    try:
        text = file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        message = f"`{shown}` cannot be read: {reason}"
        return None, [_report(document, "SFTC461", "model.hf", message, f"the path is relative to {start}")]
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
    knowledge = reach("config.json")
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
        help = knowledge.NO_SHAPE if error.help == knowledge.OTHERS else error.help
        raise ValueError(error.message, help) from None
    except (ValueError, TypeError, AttributeError, ArithmeticError):
        raise ValueError(f"`{shown}` is no config.json of a model", "name one that transformers can load") from None
    if unsayable:
        raise ValueError(f"`{shown}` asks for what sftc cannot train: {'; '.join(unsayable)}", knowledge.UNSAID)
    values["model.rotary_base"] = int(values["model.rotary_base"])
    for key, schema in leaves():
        if key in values and not _fits(values[key], schema):
            raise ValueError(f"`{shown}` makes `{key}` {json.dumps(values[key])}, which no model has")
    return values


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    kind = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}.get(type(value))
    if kind not in types and not (kind == "integer" and "number" in types):
        return False
    return kind not in ("integer", "number") or bool(value >= schema.get("minimum", value))


def _contradictions(document: RecipeDocument, values: Mapping[str, Any]) -> Iterator[Diagnostic]:
    """A line of the recipe that says other than config.json: one of the two is a slip."""
    for key, wanted in values.items():
        section, _, name = key.rpartition(".")
        node: Any = document.data
        for part in section.split("."):
            node = node.get(part) or {}
        for spelled in (name, name.replace("_", "-")):
            if node.get(spelled) is not None and node[spelled] != wanted:
                there = "there is none" if wanted is None else f"it is {json.dumps(wanted)}"
                message = f"`{section}.{spelled}` is {json.dumps(node[spelled])} here, and by the config.json {there}"
                help = "leave the line out, or name another model in `model.hf`"
                yield _report(document, "SFTC408", f"{section}.{spelled}", message, help)


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
