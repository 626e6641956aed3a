"""What was decided: every value of a recipe with the reason why it has that value.

A `Plan` is plain data. It knows nothing of files, of templates or of Megatron's option parser.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .task import TaskResolution


@dataclass(frozen=True, slots=True, kw_only=True)
class FromRecipe:
    """The recipe says so, or the base `file`, named relative to the recipe."""

    file: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"from": "recipe"} if self.file is None else {"from": "recipe", "file": self.file}


@dataclass(frozen=True, slots=True, kw_only=True)
class FromOverride:
    """`--set` says so."""

    def to_json(self) -> dict[str, Any]:
        return {"from": "override"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """A free mapping whose entries, by their names, come from several places."""

    entries: tuple[tuple[str, FromRecipe | FromOverride], ...]

    def to_json(self) -> dict[str, Any]:
        return {"from": "merged", "entries": {name: origin.to_json() for name, origin in self.entries}}


@dataclass(frozen=True, slots=True, kw_only=True)
class FromPreset:
    """The preset that the recipe names says so. Of a mapping, the recipe says the entries in `recipe` itself."""

    preset: str
    recipe: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"from": "preset", "preset": self.preset, **({"recipe": list(self.recipe)} if self.recipe else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class FromConfig:
    """The config.json that the recipe names says so. Of a mapping, the recipe says the entries in `recipe` itself."""

    recipe: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"from": "config.json", **({"recipe": list(self.recipe)} if self.recipe else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Default:
    """The recipe is silent; the schema's default holds, or null in a section that is not there."""

    def to_json(self) -> dict[str, Any]:
        return {"from": "default"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """Computed by a named rule from other keys."""

    rule: str
    inputs: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"from": "derived", "rule": self.rule, "inputs": list(self.inputs)}


type Origin = FromRecipe | FromOverride | Merged | FromPreset | FromConfig | Default | Derived


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A value and where it came from."""

    value: Any
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the recipe leaves to a published model: `values` by dotted key, `args` for `megatron.args`.

    `name` and `text` are the input that it was read from, for the manifest.
    """

    origin: FromPreset | FromConfig
    values: Mapping[str, Any]
    args: Mapping[str, Any]
    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One Megatron option with its values, ready for the argument file.

    `key` is the recipe key behind it; where sftc itself sets the option, `key` is None and `reason` says why.
    """

    option: str
    values: tuple[str, ...] = ()
    key: str | None = None
    reason: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One exported environment variable and its reason."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A function of the user's own. `target` is what the generated module names: `hook_weighted.py:loss`, a file of the
    build dir, or `package.module:loss`. `takes` names the values that it is called with; `file` and `text` are those of
    the copy.
    """

    name: str
    target: str
    takes: tuple[str, ...]
    file: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run, resolved. `values` maps dotted recipe keys, in the schema's order."""

    name: str
    description: str | None
    task: TaskResolution
    values: Mapping[str, Resolved]
    arguments: tuple[Argument, ...] = ()
    cpu_arguments: tuple[Argument, ...] = ()
    environment: tuple[Variable, ...] = ()
    torchrun: tuple[str, ...] = ()
    chat_template: str | None = None
    lock: bytes | None = None
    hooks: tuple[Hook, ...] = ()
    shape: Shape | None = None

    @property
    def has_rows(self) -> bool:
        """Whether the recipe names training rows; else a hook brings samples of its own."""
        return self["data.train_data_path"] is not None or self["data.sources"] is not None

    @property
    def validates(self) -> bool:
        """Whether there is something to evaluate on."""
        named = self["data.valid_data_path"] is not None or self["data.valid_fraction"] is not None
        return named or (self["hooks.datasets_provider"] is not None and self["eval.eval_interval"] is not None)

    def __getitem__(self, key: str) -> Any:
        """The value of a dotted recipe key."""
        return self.values[key].value

    def sections(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The values as nested objects, section by section, for plan.json."""
        tree: dict[str, Any] = {}
        for key, resolved in self.values.items():
            *parents, leaf = key.split(".")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = {"value": resolved.value, "origin": resolved.origin.to_json()}
        yield from tree.items()
