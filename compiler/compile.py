"""The stages in their order: recipe in, artifacts and diagnostics out. Reads files, writes none.

`check_recipe` is what `sftc validate` needs; `compile_recipe` goes on to the artifacts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import launcher, megatron
from .diagnostics import Diagnostic, Severity, has_errors, sort_diagnostics
from .estimate.check import check_memory
from .hooks import find_hooks
from .layers import Reading, read_layers, start_of, with_layers
from .loader import RecipeDocument
from .lock import lock_path, read_lock
from .manifest import make_manifest, make_sums
from .origins import make_origins
from .plan import Plan
from .render import CHAT_TEMPLATE, LOCK, Artifact, render
from .resolve import resolve
from .rules import check_rules
from .schemas import recipe_schema
from .shapes import find_shape
from .source import SourceFile, source_from_bytes
from .task import resolve_task
from .validate import validate


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A recipe after all checks. `plan` is None if and only if there are errors.

    `sources` are the texts that diagnostics point into, the recipe's first; `inputs` the files that artifacts are
    copied from, by the artifact's name.
    """

    sources: tuple[SourceFile, ...]
    document: RecipeDocument | None
    plan: Plan | None
    diagnostics: list[Diagnostic]
    inputs: Mapping[str, Path] = field(default_factory=dict)

    @property
    def texts(self) -> dict[str, str]:
        """The sources as reporters take them."""
        return {source.name: source.text for source in self.sources}


def check_recipe(path: Path | None, name: str, overrides: Sequence[str] = (), *, locked: bool = True) -> Checked:
    """Read and check the recipe at `path` (None: standard input), called `name` in messages: every stage that can still
    speak does. `overrides` are of the form `train.lr=1e-5`. Unless `locked`, a lock beside the recipe is not looked at.
    """
    beside = lock_path(path) if locked and path is not None else None
    return _check(read_layers(path, name, overrides), name, beside)


def check_text(text: str, name: str) -> Checked:
    """The same for a recipe that is not on disk; files that it names are looked for in the current directory."""
    source, found = source_from_bytes(text.encode(), name)
    return _check(with_layers(source, found, None), name, None)


def _check(reading: Reading, name: str, beside: Path | None) -> Checked:
    """`beside` is where a lock of the recipe would be."""
    document, found, sources = reading.document, reading.diagnostics, reading.sources
    if document is None:
        return Checked(sources=sources, document=None, plan=None, diagnostics=sort_diagnostics(found))
    found += validate(document, recipe_schema())
    task, more = resolve_task(document)
    found += more
    plan = None
    inputs: dict[str, Path] = {}
    if task is not None and not has_errors(found):
        template, more = _chat_template(document, inputs)
        hooks, bad_hooks = find_hooks(document)
        shape, bad_shape = find_shape(document)
        found += [*more, *bad_hooks, *bad_shape]
        if shape is not None or not bad_shape:
            plan = resolve(document, task, chat_template=template, hooks=hooks, shape=shape)
            found += [*check_rules(plan, document), *megatron.check(plan, document)]
        if plan is not None and beside is not None and beside.exists():
            inputs[LOCK] = beside
            text, lock, more = read_lock(beside, str(lock_path(Path(name))), plan, document)
            plan = replace(plan, lock=lock)
            sources += (text,) if text else ()
            found += more
    if plan is None or has_errors(found):
        return Checked(sources=sources, document=document, plan=None, diagnostics=sort_diagnostics(found))
    found += check_memory(plan, document)
    plan = megatron.arguments(plan)
    plan = replace(plan, torchrun=launcher.torchrun_words(plan), environment=tuple(launcher.environment(plan)))
    return Checked(sources=sources, document=document, plan=plan, diagnostics=sort_diagnostics(found), inputs=inputs)


def artifacts(checked: Checked) -> tuple[Artifact, ...]:
    """The whole build dir of a recipe without errors, digests and origins included."""
    assert checked.plan is not None
    assert checked.document is not None
    rendered = render(checked.plan)
    manifest = make_manifest(rendered, checked.document, checked.plan)
    sums = make_sums((*rendered, manifest))
    return (*rendered, manifest, sums, make_origins(rendered, checked.document))


def _chat_template(document: RecipeDocument, inputs: dict[str, Path]) -> tuple[str | None, list[Diagnostic]]:
    """The text of the file that the recipe names, which is noted in `inputs`."""
    name = document.data["tokenizer"].get("chat_template")
    if name is None:
        return None, []
    pointer = "/tokenizer/chat_template"
    folder, start = start_of(document, pointer)
    inputs[CHAT_TEMPLATE] = folder / name
    try:
        return (folder / name).read_bytes().decode("utf-8").replace("\r\n", "\n"), []
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        report = Diagnostic(
            code="SFTC461",
            severity=Severity.ERROR,
            message=f"the chat template `{name}` cannot be read: {reason}",
            span=document.places[pointer].value,
            pointer=pointer,
            help=f"the path is relative to {start}",
        )
        return None, [report]
