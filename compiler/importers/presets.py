"""Models and modules that a Primus configuration names: as files beside it or under a checkout, or as presets of ours."""

from pathlib import Path

from ..schemas import recipe_schema

# Primus' name of a model, in lower case with dashes, and the name of the recipe preset.
MODELS = {
    "deepseek-v2-lite": "deepseek-v2-lite",
    "llama2-7b": "llama-2-7b",
    "llama3.1-8b": "llama-3.1-8b",
    "mistral-7b-v0.3": "mistral-7b-v0.3",
    "mixtral-8x7b-v0.1": "mixtral-8x7b",
    "qwen2.5-7b": "qwen2.5-7b",
    "qwen3-30b-a3b": "qwen3-30b-a3b",
    "qwen3-8b": "qwen3-8b",
}


def model_preset(name: str) -> str | None:
    """The preset of a recipe for Primus' model `name`, if recipes have it."""
    known = recipe_schema()["properties"]["model"]["properties"].get("preset", {}).get("enum", ())
    preset = MODELS.get(name.removesuffix(".yaml").lower().replace("_", "-"))
    return preset if preset in known else None


def find(name: str, kind: str, framework: str, config: Path, root: Path | None) -> Path | None:
    """The file of preset `name`; `kind` is `models` or `modules`. A checkout around the configuration is found too."""
    name = name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"
    folder = config.absolute().parent
    places = [folder, folder / kind / framework]
    around = [root] if root else [parent for parent in folder.parents if (parent / "primus/configs").is_dir()]
    for checkout in around:
        places += [checkout / configs / kind / framework for configs in ("primus/configs", "configs", ".")]
    return next((place / name for place in places if (place / name).is_file()), None)
