"""The lock beside a recipe: what its run-time inputs were when `sftc lock` looked at them.

Compiling takes a lock in and looks at no input: that is done where the run starts. The lock has to be of this recipe's
paths, or a run would be verified against files that it does not read.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .diagnostics import Diagnostic, Severity, Span
from .loader import RecipeDocument
from .plan import Plan
from .pointers import dotted
from .render import to_json
from .schemas import load_schema
from .source import SourceFile
from .validate import first_violation

SCHEMA = "lock.schema.json"


def lock_path(recipe: Path) -> Path:
    """`recipe.lock` beside `recipe.yaml`: each recipe of a directory has its own."""
    return recipe.with_suffix(".lock")


def inputs(plan: Plan) -> dict[str, tuple[str, str]]:
    """What has to be locked, by key as messages spell it: the JSON pointer and the run-time path."""
    keys = ("data.train_data_path", "data.valid_data_path", "tokenizer.path", "model.load")
    paths = {"/" + key.replace(".", "/"): plan[key] for key in keys}
    sources = plan["data.sources"] or []
    paths |= {f"/data/sources/{number}/path": source["path"] for number, source in enumerate(sources)}
    return {dotted(pointer): (pointer, path) for pointer, path in paths.items() if path is not None}


def read_lock(
    path: Path, name: str, plan: Plan, document: RecipeDocument
) -> tuple[SourceFile | None, bytes | None, list[Diagnostic]]:
    """The lock's text, what the build dir holds of it, and what is wrong with it."""
    remedy = f"`sftc lock {document.source.name}` writes it anew"
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except OSError as error:
        return None, None, [_error("SFTC491", f"`{name}` cannot be read: {error.strerror}", help=remedy)]
    except json.JSONDecodeError as error:
        span = Span(file=name, line=error.lineno, column=error.colno, end_line=error.lineno, end_column=error.colno)
        source = SourceFile(name=name, text=text, sha256="")
        return source, None, [_error("SFTC491", f"the lock is no JSON: {error.msg}", span, help=remedy)]
    except (ValueError, RecursionError):
        return None, None, [_error("SFTC491", f"`{name}` is no JSON", help=remedy)]
    if violation := first_violation(content, load_schema(SCHEMA)):
        return None, None, [_error("SFTC491", f"`{name}` is no lock: {violation}", help=remedy)]
    found = list(_differences(name, content["inputs"], plan, document, remedy))
    return None, None if found else to_json(content), found


def _differences(
    name: str, locked: dict[str, Any], plan: Plan, document: RecipeDocument, remedy: str
) -> Iterator[Diagnostic]:
    wanted = inputs(plan)
    for key, (pointer, path) in wanted.items():
        span = document.places[pointer].value
        if key not in locked:
            yield _error("SFTC492", f"`{name}` knows no `{key}`", span, pointer, remedy)
        elif locked[key]["path"] != path:
            message = f"`{key}` is `{path}`, and `{name}` holds `{locked[key]['path']}`"
            yield _error("SFTC492", message, span, pointer, remedy)
    for key in locked:
        if key not in wanted:
            yield _error("SFTC492", f"`{name}` holds `{key}`, which the recipe does not set", help=remedy)


def _error(
    code: str, message: str, span: Span | None = None, pointer: str | None = None, help: str | None = None
) -> Diagnostic:
    return Diagnostic(code=code, severity=Severity.ERROR, message=message, span=span, pointer=pointer, help=help)
