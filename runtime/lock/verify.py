"""Whether inputs are what a lock holds: every difference, by the name of its file."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..bundle import Bundle
from ..errors import UserError
from .inputs import LOAD, files_now
from .make import VERSION, Reading
from .template import template_digest

LOCK, TEMPLATE = "recipe.lock", "chat_template.jinja"
SHOWN = 20


def require_locked(bundle: Bundle, *, reads_weights: bool) -> str | None:
    """A line that says what was verified; None for a build without a lock. UserError that lists every difference.

    A resumed run does not read its first weights, unless they are frozen.
    """
    if LOCK not in bundle.files:
        return None
    lock = json.loads((bundle.path / LOCK).read_bytes())
    if lock.get("lock_version") != VERSION:
        raise UserError(
            f"`{bundle.path / LOCK}` has lock_version {lock.get('lock_version')}, this sftc reads {VERSION}"
        )
    if not reads_weights:
        lock["inputs"].pop(LOAD, None)
    own = (bundle.path / TEMPLATE).read_text(encoding="utf-8") if TEMPLATE in bundle.files else None
    found = differences(lock, bundle.value, own)
    if found:
        more = f"\n  and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        count = f"{len(found)} {'difference' if len(found) == 1 else 'differences'}"
        raise UserError(
            f"the inputs are not what was locked, {count}:\n" + "\n".join(f"  {text}" for text in found[:SHOWN]) + more,
            "put back what was locked; or, if the change is meant, `sftc lock RECIPE`, and review and compile again",
        )
    files = sum(len(one["files"]) for one in lock["inputs"].values())
    return f"the inputs are as locked: {files:,} {'file' if files == 1 else 'files'}"


def differences(lock: Mapping[str, Any], value: Callable[[str], Any], template: str | None) -> list[str]:
    """`value` gives the plan's value of a key; `template` is the text of the recipe's own chat template."""
    found: list[str] = []
    reading = Reading([Path(name) for one in lock["inputs"].values() for name in one["files"]])
    try:
        for key, one in lock["inputs"].items():
            found += _of_input(key, one, reading)
    finally:
        reading.close()
    digest = template_digest(value, template)
    if digest != lock["chat_template"]:
        found.append(f"the chat template is another text: {_told(digest, lock['chat_template'])}")
    return found


def _of_input(key: str, one: Mapping[str, Any], reading: Reading) -> list[str]:
    problems = [text for name, facts in one["files"].items() if (text := _problem(name, facts, reading))]
    try:
        now = files_now(one["kind"], one["path"], key)
    except UserError as error:
        return problems or [error.message]
    return problems + [f"`{path}` is not in the lock" for path in now if str(path) not in one["files"]]


def _problem(name: str, facts: Mapping[str, Any], reading: Reading) -> str | None:
    path = Path(name)
    try:
        size = path.stat().st_size
        if not path.is_file():
            return f"`{name}` is no file"
        if size != facts["size"]:
            return f"`{name}` has {size:,} bytes, the lock says {facts['size']:,}"
        if "sha256" in facts and (digest := reading.sha256(path)) != facts["sha256"]:
            return f"`{name}` has other content: {_told(digest, facts['sha256'])}"
    except FileNotFoundError:
        return f"`{name}` is missing"
    except OSError as error:
        return f"`{name}` cannot be read: {error.strerror}"
    return None


def _told(digest: str | None, locked: str | None) -> str:
    now, then = ("none" if one is None else one[:12] for one in (digest, locked))
    return f"its sha256 is {now}, the lock says {then}"
