"""The figures of an evaluation's answers that are read off the texts alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from .answer import Answer
from .exact import definition, exact_match, require_references
from .overlap import of_conversations, of_corpus, require_libraries

__all__ = ["Scores", "require_libraries", "require_references", "score"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """`values` by name: exact_match and ROUGE from 0 to 1, bleu and chrf from 0 to 100, None where nothing can be said.
    `matches` is the exact match of each answer, None where its reference does not have the pattern or nobody asks.
    `definitions` are those of scores.json, `notes` sentences for the terminal.
    """

    values: dict[str, float | None]
    matches: list[bool | None]
    definitions: dict[str, str]
    notes: list[str]


def score(answers: Sequence[Answer], metrics: Sequence[str], pattern: str | None) -> Scores:
    """Those of `metrics` that are about texts: exact_match (with `pattern`), bleu, chrf, rouge. One answer at least."""
    given, wanted = [one.answer for one in answers], [one.reference for one in answers]
    values: dict[str, float | None] = {}
    matches: list[bool | None] = [None] * len(answers)
    definitions: dict[str, str] = {}
    notes: list[str] = []
    if "exact_match" in metrics:
        exact = exact_match(given, wanted, pattern)
        values["exact_match"], matches = exact.value, exact.matches
        definitions["exact_match"] = definition(pattern)
        notes += exact.notes
    for metric in ("bleu", "chrf", "rouge"):
        if metric in metrics:
            found = of_conversations(given, wanted) if metric == "rouge" else of_corpus(metric, given, wanted)
            values |= found.values
            definitions[metric] = found.definition
            notes += found.notes
    return Scores(values=values, matches=matches, definitions=definitions, notes=notes)
