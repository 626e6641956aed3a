"""Models and modules that a Primus configuration names: files beside it or in a checkout, or presets of recipes."""

from pathlib import Path

from ..schemas import recipe_schema

# Primus' names that differ in more than case and dashes from those of recipe presets.
RENAMED = {
    "llama31-70b": "llama-3.1-70b",
    "mixtral-8x22b-v0.1": "mixtral-8x22b",
    "mixtral-8x7b-v0.1": "mixtral-8x7b",
}


def model_preset(name: str) -> str | None:
    """The preset of a recipe for Primus' model `name`, if recipes have it."""
    known = recipe_schema()["properties"]["model"]["properties"].get("preset", {}).get("enum", ())
    plain = name.removesuffix(".yaml").lower().replace("_", "-")
    wanted = RENAMED.get(plain, plain).replace("-", "")
    return next((preset for preset in known if preset and preset.replace("-", "") == wanted), None)


def find(name: str, kind: str, framework: str, config: Path, root: Path | None) -> Path | None:
    """The file of preset `name`; `kind` is `models` or `modules`. A checkout around the configuration is found too."""
    name = name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"
    folder = config.absolute().parent
    places = [folder, folder / kind / framework]
    around = [root] if root else [parent for parent in folder.parents if (parent / "primus/configs").is_dir()]
    for checkout in around:
        places += [checkout / configs / kind / framework for configs in ("primus/configs", "configs", ".")]
    return next((place / name for place in places if (place / name).is_file()), None)
