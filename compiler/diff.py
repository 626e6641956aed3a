"""How two build dirs differ: resolved values first, each with its reason, then the texts.

A value that has another reason counts as changed; one that stands on another line does not. The texts of plan.json
and manifest.json follow from the rest and are shown only where nothing else differs; SHA256SUMS and origins.json never
are.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any

from .built import PLAN, Built, Entry
from .launcher import WORD_KEYS
from .manifest import MANIFEST, ORIGINS, SUMS
from .pointers import join, pointer_to

# What stands in a plan beside its values.
HEAD = ("plan_version", "sftc_version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something with a JSON pointer into plan.json; None on the side that does not have it."""

    pointer: str
    label: str
    old: Entry | None
    new: Entry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`texts` holds the unified diff of each artifact that differs."""

    old: str
    new: str
    changes: tuple[Change, ...]
    texts: Mapping[str, str]

    def __bool__(self) -> bool:
        return bool(self.changes or self.texts)


def compare(old: Built, new: Built, *, plan_only: bool = False) -> Difference:
    """What changes from `old` to `new`; `plan_only` leaves out the texts."""
    changes = (*_head(old, new), *_values(old, new))
    keys = {change.label for change in changes}
    changes = (*changes, *_unexplained(old, new, keys))
    return Difference(
        old=old.name, new=new.name, changes=changes, texts={} if plan_only else _texts(old, new, bool(changes))
    )


def _head(old: Built, new: Built) -> Iterator[Change]:
    """The version of sftc, and the decision about the task, which may change its reason with no value changing."""
    for name in HEAD:
        if old.plan[name] != new.plan[name]:
            yield Change(pointer=f"/{name}", label=name, old=_fact(old.plan[name]), new=_fact(new.plan[name]))


def _values(old: Built, new: Built) -> Iterator[Change]:
    for key in dict.fromkeys((*old.values, *new.values)):
        before, after = old.values.get(key), new.values.get(key)
        if _known(before) != _known(after):
            # The name and the description stand in the plan's head.
            parts = [key] if "." not in key else ["values", *key.split(".")]
            yield Change(pointer=pointer_to(parts), label=key, old=before, new=after)


def _unexplained(old: Built, new: Built, keys: set[str]) -> Iterator[Change]:
    """Arguments, variables and torchrun's words that changed without a key behind them: decided by sftc."""
    for table, read in _TABLES.items():
        before, after = read(old), read(new)
        for name in dict.fromkeys((*before, *after)):
            one, other = before.get(name), after.get(name)
            if any(entry and _follows(entry, keys) for entry in (one, other)):
                continue
            if (one and one.value) != (other and other.value):
                yield Change(pointer=join(f"/{table}", name), label=name, old=one, new=other)


def _follows(entry: Entry, keys: set[str]) -> bool:
    key = str(entry.origin.get("key", ""))
    return key in keys or key.rpartition(".")[0] in keys


def _options(table: str) -> Callable[[Built], dict[str, Entry]]:
    return lambda built: {
        item["option"]: _reasoned(item["values"], item.get("key"), item.get("reason")) for item in built.plan[table]
    }


def _variables(built: Built) -> dict[str, Entry]:
    found = {}
    for item in built.plan["environment"]:
        key = item["reason"] if item["reason"].startswith("launch.environment.") else None
        found[item["name"]] = _reasoned(item["value"], key, item["reason"])
    return found


def _words(built: Built) -> dict[str, Entry]:
    pairs = (word.partition("=") for word in built.plan["torchrun"])
    return {name: _reasoned(value, WORD_KEYS.get(name), "torchrun") for name, _, value in pairs}


_TABLES: dict[str, Callable[[Built], dict[str, Entry]]] = {
    "arguments": _options("arguments"),
    "cpu_arguments": _options("cpu_arguments"),
    "environment": _variables,
    "torchrun": _words,
}


def _reasoned(value: Any, key: str | None, reason: str | None) -> Entry:
    origin = {"from": "key", "key": key} if key else {"from": "sftc", "reason": reason}
    return Entry(value=value, origin=origin, place=None)


def _fact(value: Any) -> Entry:
    return Entry(value=value, origin={"from": "sftc"}, place=None)


def _known(entry: Entry | None) -> Any:
    return entry and (type(entry.value), entry.value, entry.origin)


def _texts(old: Built, new: Built, changed: bool) -> dict[str, str]:
    """The unified diffs, by artifact; of the two that follow from the rest, if there is no rest."""
    paths = [path for path in dict.fromkeys((*old.texts, *new.texts)) if path not in (SUMS, ORIGINS)]
    found = {path: text for path in paths if (text := _unified(old, new, path))}
    rest = {path: text for path, text in found.items() if path not in (PLAN, MANIFEST)}
    return rest if rest or changed else found


def _unified(old: Built, new: Built, path: str) -> str:
    before, after = (side.texts.get(path, "").splitlines() for side in (old, new))
    one, other = (f"{side.name}/{path}" if path in side.texts else "/dev/null" for side in (old, new))
    return "".join(f"{line}\n" for line in unified_diff(before, after, one, other, lineterm=""))
