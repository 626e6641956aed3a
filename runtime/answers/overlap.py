"""What answers and references have in common in words and characters: BLEU and chrF by sacrebleu, ROUGE by rouge-score.

Both libraries are imported where a figure asks for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from statistics import fmean

from ..errors import UserError

ROUGES = ("rouge1", "rouge2", "rougeL")
# Metric → the library's module, and its name in a registry.
LIBRARIES = {
    "bleu": ("sacrebleu", "sacrebleu"),
    "chrf": ("sacrebleu", "sacrebleu"),
    "rouge": ("rouge_score", "rouge-score"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """A value is None where the figure sees nothing in these references: they would get 0 against themselves."""

    values: dict[str, float | None]
    definition: str
    notes: list[str]


def require_libraries(metrics: Sequence[str]) -> None:
    """UserError if the library of a metric is not installed."""
    for metric in metrics:
        module, name = LIBRARIES.get(metric, (None, None))
        if module is not None and find_spec(module) is None:
            raise UserError(
                f"`eval.generate.metrics` asks for `{metric}`, and the library `{name}` is not installed here",
                help=f"pip install 'sftc[metrics]', or leave `{metric}` out",
            )


def of_corpus(metric: str, answers: Sequence[str], references: Sequence[str]) -> Overlap:
    """`bleu` or `chrf` of the whole corpus, 0 to 100; the definition is sacrebleu's signature."""
    from sacrebleu.metrics import BLEU, CHRF

    # force: no warning on answers that end in a full stop with a blank before it.
    scorer = BLEU(force=True) if metric == "bleu" else CHRF()
    texts = [list(references)]
    value = float(scorer.corpus_score(list(answers), texts).score)
    signature = str(scorer.get_signature())
    if scorer.corpus_score(texts[0], texts).score == 0:
        looks = "four words in a row" if metric == "bleu" else "a character"
        note = f"no reference has {looks}, which {metric} looks for: there is no {metric}"
        return Overlap(values={metric: None}, definition=signature, notes=[note])
    return Overlap(values={metric: value}, definition=signature, notes=[])


def of_conversations(answers: Sequence[str], references: Sequence[str]) -> Overlap:
    """rouge1, rouge2 and rougeL: F-measures, 0 to 1, each the mean over conversations."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGES), use_stemmer=False)
    scores = [scorer.score(target, answer) for target, answer in zip(references, answers, strict=True)]
    perfect = [scorer.score(target, target) for target in references]
    values: dict[str, float | None] = {}
    notes = []
    for name in ROUGES:
        values[name] = fmean(one[name].fmeasure for one in scores)
        if unseen := sum(one[name].fmeasure == 0 for one in perfect):
            looks = "two words of a-z and 0-9 in a row" if name == "rouge2" else "a word of a-z and 0-9"
            count = len(references)
            if unseen == count:
                values[name] = None
                notes.append(f"no reference has {looks}, which {name} looks for: there is no {name}")
            else:
                notes.append(f"{unseen} of the {count} references have not {looks}: in {name} they count 0")
    definition = f"rouge-score {version('rouge-score')}, F-measure, no stemmer, mean over conversations"
    return Overlap(values=values, definition=definition, notes=notes)
