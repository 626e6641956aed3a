"""What `sftc data ...` asks for, as text and plain data. Loaded by name, by the command line; imports no torch.

Every function takes the plan's values and the text of the recipe's own chat template, if it names one. Data that is not
prepared yet is prepared first, as launch.sh does it: into the same store, under the same key. UserError ends a command;
it is told on stderr, and the answer is None.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..errors import UserError
from ..progress import Counter, complain, say
from . import preview_page, preview_text, stats
from .figures import measure
from .prepare import Prepared, prepare
from .preview import Shown, read_samples
from .settings import DataSettings
from .tokens import TextTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """`value` gives the resolved value of a key such as `data.format`."""

    name: str
    value: Callable[[str], Any]
    chat_template: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Samples to look at: `count` of each split from number `first` on."""

    splits: tuple[str, ...]
    first: int
    count: int


def told[**P, T](function: Callable[P, T]) -> Callable[P, T | None]:
    """`function`, with a UserError told on stderr and None returned for it."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            complain(error)
            return None

    return run


@told
def prepare_recipe(recipe: Recipe) -> str:
    """Prepare the data and say where it is."""
    prepared = _prepared(recipe)
    for notice in prepared.notices:
        say(notice)
    counts = " and ".join(f"{prepared.rows(split):,} {split}" for split in prepared.summary["splits"])
    state = "prepared" if prepared.is_new else "already prepared"
    say(f"{recipe.name}: {counts} samples, {state}")
    return f"{prepared.store}\n"


@told
def statistics(recipe: Recipe) -> dict[str, Any]:
    """The figures, as JSON data."""
    return _statistics(recipe, _prepared(recipe))


def table(statistics: dict[str, Any]) -> str:
    """The figures for people."""
    return stats.table(statistics)


@told
def preview(recipe: Recipe, choice: Choice, colour: bool, columns: int) -> str:
    """Samples for the terminal."""
    return preview_text.terminal(_samples(recipe, _prepared(recipe), choice), colour=colour, columns=columns)


@told
def page(recipe: Recipe, choice: Choice) -> dict[str, Any]:
    """What the HTML page shows, for its template."""
    prepared = _prepared(recipe)
    samples = _samples(recipe, prepared, choice)
    return preview_page.page(_statistics(recipe, prepared), prepared.notices, samples)


def splits(recipe: Recipe) -> tuple[str, ...]:
    """Those that the recipe names data for."""
    names = ("data.valid_data_path", "data.valid_fraction")
    return ("train", "valid") if any(recipe.value(name) is not None for name in names) else ("train",)


def _prepared(recipe: Recipe) -> Prepared:
    counter = Counter("preparing data")
    try:
        with TemporaryDirectory() as directory:
            if recipe.chat_template is not None:
                # As it lies in a build dir.
                Path(directory, "chat_template.jinja").write_text(recipe.chat_template, "utf-8")
            return prepare(DataSettings.from_plan(recipe.value, Path(directory)), counter, say)
    finally:
        counter.close()


def _statistics(recipe: Recipe, prepared: Prepared) -> dict[str, Any]:
    figures = measure(prepared.store, list(prepared.summary["splits"]))
    return stats.statistics(recipe.name, prepared.summary, figures)


def _samples(recipe: Recipe, prepared: Prepared, choice: Choice) -> list[Shown]:
    tokenizer = TextTokenizer.load(Path(recipe.value("tokenizer.path")), recipe.value("model.vocab_size"))
    return [
        sample
        for split in choice.splits
        for sample in read_samples(prepared.store, prepared.summary, tokenizer, split, choice.first, choice.count)
    ]
