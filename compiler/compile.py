"""The stages in their order: recipe in, artifacts and diagnostics out. Reads files, writes none.

`check_recipe` is what `sftc validate` needs; `compile_recipe` goes on to the artifacts.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from . import launcher, megatron
from .diagnostics import Diagnostic, Severity, has_errors, sort_diagnostics
from .loader import RecipeDocument, load
from .manifest import make_manifest, make_sums
from .origins import make_origins
from .plan import Plan
from .render import Artifact, render
from .resolve import resolve
from .rules import check_rules
from .schemas import recipe_schema
from .source import SourceFile, read_source
from .task import resolve_task
from .validate import validate


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A recipe after all checks. `plan` is None if and only if there are errors."""

    source: SourceFile | None
    document: RecipeDocument | None
    plan: Plan | None
    diagnostics: list[Diagnostic]


def check_recipe(path: Path, name: str) -> Checked:
    """Read and check the recipe at `path`, called `name` in messages: every stage that can still speak does."""
    source, found = read_source(path, name)
    document = None
    if source is not None:
        document, more = load(source)
        found = [*found, *more]
    if document is None:
        return Checked(source=source, document=None, plan=None, diagnostics=sort_diagnostics(found))
    found += validate(document, recipe_schema())
    task, more = resolve_task(document)
    found += more
    plan = None
    if task is not None and not has_errors(found):
        template, more = _chat_template(document, path)
        plan = resolve(document, task, chat_template=template)
        found += [*more, *check_rules(plan, document), *megatron.check(plan, document)]
    if plan is None or has_errors(found):
        return Checked(source=source, document=document, plan=None, diagnostics=sort_diagnostics(found))
    plan = megatron.arguments(plan)
    plan = replace(plan, torchrun=launcher.torchrun_words(plan), environment=tuple(launcher.environment(plan)))
    return Checked(source=source, document=document, plan=plan, diagnostics=sort_diagnostics(found))


def artifacts(checked: Checked) -> tuple[Artifact, ...]:
    """The whole build dir of a recipe without errors, digests and origins included."""
    assert checked.plan is not None
    assert checked.document is not None
    rendered = render(checked.plan)
    manifest = make_manifest(rendered, checked.document.data, checked.plan)
    sums = make_sums((*rendered, manifest))
    return (*rendered, manifest, sums, make_origins(rendered, checked.document))


def _chat_template(document: RecipeDocument, path: Path) -> tuple[str | None, list[Diagnostic]]:
    name = document.data["tokenizer"].get("chat_template")
    if name is None:
        return None, []
    try:
        return (path.parent / name).read_bytes().decode("utf-8").replace("\r\n", "\n"), []
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        pointer = "/tokenizer/chat_template"
        report = Diagnostic(
            code="SFTC461",
            severity=Severity.ERROR,
            message=f"the chat template `{name}` cannot be read: {reason}",
            span=document.places[pointer].value,
            pointer=pointer,
            help="the path is relative to the recipe",
        )
        return None, [report]
