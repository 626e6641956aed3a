"""Functions of the user's own, called in the place of sftc's: found, and checked as far as their text allows.

A file that a recipe names is read and never imported. What text cannot tell, such as what a function returns, the
runtime checks when it calls it.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .diagnostics import Diagnostic, Severity
from .layers import start_of
from .loader import RecipeDocument
from .plan import Hook
from .schemas import recipe_schema
from .suggest import closest
from .wording import plural

PREFIX = "hook_"  # of the copies in the build dir: no file of a user's can take an artifact's name
OF_ANSWERS = "answer_metrics"
type Function = ast.FunctionDef | ast.AsyncFunctionDef


def step_hooks() -> list[str]:
    """The hooks that forward_step.py calls: all but the one that is called with answers, which the runtime finds."""
    return [name for name, hook in recipe_schema()["properties"]["hooks"]["properties"].items() if name != OF_ANSWERS]


def find_hooks(document: RecipeDocument) -> tuple[tuple[Hook, ...], list[Diagnostic]]:
    """The hooks that a recipe names, and what is wrong with their files."""
    hooks: list[Hook] = []
    found: list[Diagnostic] = []
    origins: dict[str, Path] = {}
    for name, schema in recipe_schema()["properties"]["hooks"]["properties"].items():
        target = (document.data.get("hooks") or {}).get(name)
        if target is None:
            continue
        place, _, function = target.rpartition(":")
        takes = tuple(schema["x-takes"])
        if not place.endswith(".py"):
            hooks.append(Hook(name=name, target=target, takes=takes))
            continue
        file = PREFIX + Path(place).name
        folder, start = start_of(document, f"/hooks/{name}")
        source = folder / place
        text, problem = _read(source, place, start)
        if text is not None:
            problem = _problem(text, source, place, function, takes)
        if origins.setdefault(file, source) != source:
            problem = "SFTC462", f"`{place}` and another hook's file are both called `{source.name}`", "rename one"
        if problem is not None:
            found.append(_report(document, name, *problem))
        hooks.append(Hook(name=name, target=f"{file}:{function}", takes=takes, file=file, text=text))
    return tuple(hooks), found


type _Problem = tuple[str, str, str | None]


def _read(source: Path, place: str, start: str) -> tuple[str | None, _Problem | None]:
    try:
        return source.read_bytes().decode("utf-8").replace("\r\n", "\n"), None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        return None, (
            "SFTC461",
            f"the hook file `{place}` cannot be read: {reason}",
            f"the path is relative to {start}",
        )


def _problem(text: str, source: Path, place: str, name: str, takes: Sequence[str]) -> _Problem | None:
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        where = f"{place}:{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else place
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        return "SFTC462", f"`{place}` is no Python: {said} ({where})", None
    for line, neighbour in _neighbours(module, source.parent):
        message = f"`{place}` imports `{neighbour}`, which lies beside it and is not copied ({place}:{line})"
        return "SFTC462", message, "put it into the same file, or install it as a package"
    named = dict(_names(module.body))
    if name not in named:
        near = closest(name, list(named))
        return "SFTC463", f"`{place}` has no function `{name}`", f"did you mean `{near}`?" if near else None
    function = named[name]
    if function is None:  # assigned or imported: what it takes is seen when it is there
        return None
    mismatch = _mismatch(function, takes)
    if mismatch is None:
        return None
    call = f"{name}({', '.join(takes)})"
    return "SFTC463", f"`{name}` {mismatch} ({place}:{function.lineno})", f"it is called as `{call}`"


def _neighbours(module: ast.Module, folder: Path) -> Iterator[tuple[int, str]]:
    """Imports that would find a file of the same folder, which is not there in a build dir."""
    for node in ast.walk(module):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        for name in names:
            top = name.split(".")[0]
            if not top or (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file():
                assert isinstance(node, ast.Import | ast.ImportFrom)
                yield node.lineno, name


def _names(body: Sequence[ast.stmt]) -> Iterator[tuple[str, Function | None]]:
    """What a module defines: functions with their definition, other names with None."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            yield node.name, None
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name.split(".")[0], None) for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((target.id, None) for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _names([*node.body, *getattr(node, "orelse", [])])


def _mismatch(function: Function, takes: Sequence[str]) -> str | None:
    """Why `function` cannot be called with that many values by position, once for each micro-batch."""
    if isinstance(function, ast.AsyncFunctionDef):
        return "is asynchronous"
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in _own_nodes(function)):
        return "is a generator"
    arguments = function.args
    names = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
    needed = len(names) - len(arguments.defaults)
    if needed > len(takes):
        return f"wants {plural(needed, 'value')} and is given {len(takes)}"
    if len(names) < len(takes) and arguments.vararg is None:
        return f"takes {plural(len(names), 'value')} and is given {len(takes)}"
    for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if default is None:
            return f"wants `{one.arg}` by name"
    return None


def _own_nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function's body without those of functions in it."""
    waiting: list[Any] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            waiting.extend(ast.iter_child_nodes(node))


def _report(document: RecipeDocument, name: str, code: str, message: str, help: str | None) -> Diagnostic:
    pointer = f"/hooks/{name}"
    return Diagnostic(
        code=code,
        severity=Severity.ERROR,
        message=f"`hooks.{name}`: {message}",
        span=document.places[pointer].value,
        pointer=pointer,
        help=help,
    )
