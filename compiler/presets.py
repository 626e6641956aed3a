"""The shapes of published models, by name: schema/models/presets.json. Knows where values lie, not what they mean."""

import json
from functools import cache
from typing import Any

from .plan import FromPreset, Shape
from .schemas import load_schema

TABLE = "models/presets.json"


def preset_names() -> list[str]:
    """In the order of the table: by family, then by size."""
    return list(load_schema(TABLE)["presets"])


def hub_names(name: str) -> list[str]:
    """The repositories on the Hugging Face hub whose config.json the preset `name` agrees with."""
    found: list[str] = load_schema(TABLE)["presets"][name]["hub"]
    return found


def not_offered() -> dict[str, str]:
    """Models that have no preset, and why."""
    found: dict[str, str] = load_schema(TABLE)["not_offered"]
    return found


@cache
def preset(name: str) -> Shape:
    """The shape of the model `name`: what its family says, and what it says itself. KeyError for an unknown name."""
    table = load_schema(TABLE)
    row = table["presets"][name]
    model: dict[str, Any] = {**table["families"][row["family"]]["model"], **row["model"]}
    args: dict[str, Any] = row.get("args", {})
    return Shape(
        origin=FromPreset(preset=name),
        values={f"model.{key}": value for key, value in model.items()},
        args=args,
        name=f"preset/{name}",
        text=json.dumps({"model": model, "args": args}, sort_keys=True),
    )
