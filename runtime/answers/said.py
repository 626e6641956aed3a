"""The scores of an evaluation as the terminal has them."""

from collections.abc import Mapping

NAMES = {
    "exact_match": "exact match",
    "token_accuracy": "token accuracy",
    "perplexity": "perplexity",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rougeL": "ROUGE-L",
}
MOST = 3  # that are said; metrics.jsonl has them all


def said(iteration: int, values: Mapping[str, float | None]) -> list[str]:
    """One line, and another one if answers were cut."""
    count = _counted(values.get("answers"))
    found = [f"{name} {value:.3g}" for key, name in NAMES.items() if (value := values.get(key)) is not None][:MOST]
    if values.get("exact_match") is None:
        found.insert(0, count)
    else:
        found[0] += f" of {count}"
    lines = [f"iteration {iteration}: {', '.join(found)}"]
    if cut := values.get("unfinished"):
        lines.append(f"iteration {iteration}: {_counted(cut)} reached the limit, `eval.generate.max_new_tokens`")
    return lines


def _counted(number: float | None) -> str:
    return f"{number or 0:,.0f} {'answer' if number == 1 else 'answers'}"
