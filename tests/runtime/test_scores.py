"""Figures of answers: by hand, by the libraries themselves, and of references against themselves."""

import json
import math
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftc.runtime.answers import exact
from sftc.runtime.answers.answer import METRICS, Answer
from sftc.runtime.answers.scores import require_libraries, require_references, score
from sftc.runtime.answers.settings import Settings
from sftc.runtime.errors import UserError

GSM8K = r"#### (-?[\d.,]+)"
REFERENCE = "She sold 48 / 2 = 24 clips in May, and 48 + 24 = 72 in both.\n#### 72"
ALL = ("exact_match", "bleu", "chrf", "rouge")
# Nested repetitions: each further `a` doubles the ways to part the text.
CATASTROPHE = r"(?:a+)+b"


def answer(text: str, reference: str) -> Answer:
    return Answer(row=0, question="", prompt="", reference=reference, answer=text, finish_reason="stop", tokens=1)


def pairs(*texts: tuple[str, str]) -> list[Answer]:
    return [answer(text, reference) for text, reference in texts]


@pytest.mark.parametrize(
    ("text", "reference", "matches"),
    [
        ("72", "72", True),
        (" 72\n", "72", True),
        ("72.", "72.00", True),
        ("1,000", "1000", True),
        ("1,234,567.50", "1234567.5", True),
        ("-5", "-5.0", True),
        ("+5", "5", True),
        (".5", "0.5", True),
        ("-0", "0", True),
        ("0.1", "0.10000000000000000555", False),
        ("1,5", "15", False),  # no thousands
        ("10,00", "1000", False),
        ("72", "-72", False),
        ("72 apples", "72", False),
        ("Paris", "paris", False),
        ("two words", "two  words", False),
        ("", "72", False),
        ("", "", True),
        ("...", "", False),
        ("1e3", "1000", False),
        ("٣", "3", False),
    ],
)
def test_whole_texts(text: str, reference: str, matches: bool) -> None:
    found = score(pairs((text, reference)), ["exact_match"], None)
    assert (found.matches, found.values) == ([matches], {"exact_match": float(matches)})
    assert found.notes == []


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("So she sold 72.\n#### 72", True),
        ("#### 72.", True),
        ("#### 72,", True),
        ("#### 7", False),
        ("72", False),  # without the pattern
        ("#### 72\n#### 7", True),  # the first one counts
        ("#### 7\n#### 72", False),
        ("", False),
    ],
)
def test_the_group_of_a_pattern(text: str, matches: bool) -> None:
    assert score(pairs((text, REFERENCE)), ["exact_match"], GSM8K).matches == [matches]


def test_all_of_a_pattern_without_a_group_and_non_capturing_groups() -> None:
    texts = pairs(("It is yes.", "yes"), ("no, not yes", "yes"))
    assert score(texts, ["exact_match"], "yes|no").matches == [True, False]
    assert score(pairs(("Answer: 7", "#### 7.0")), ["exact_match"], r"(?:####|Answer:) ([\d.]+)").matches == [True]


def test_a_group_that_finds_nothing_is_no_answer() -> None:
    found = score(pairs(("a", "a"), ("a 1", "a 1")), ["exact_match"], r"a( \d)?")
    assert (found.matches, found.values["exact_match"]) == ([None, True], 1.0)


def test_references_without_the_pattern_are_left_out_and_told() -> None:
    found = score(pairs(("#### 1", "#### 1"), ("#### 2", "#### 3"), ("#### 4", "four")), ["exact_match"], GSM8K)
    assert (found.matches, found.values["exact_match"]) == ([True, False, None], 0.5)
    (note,) = found.notes
    assert note == "the pattern is not in 1 of the 3 references, and exact match is that of the others"


def test_no_answer_with_the_pattern_is_told() -> None:
    found = score(pairs(("1", "#### 1"), ("2", "#### 2")), ["exact_match"], GSM8K)
    assert (found.values["exact_match"], found.notes) == (0.0, ["the pattern is in none of the 2 answers"])


def test_without_a_reference_there_is_no_value_rather_than_zero() -> None:
    found = score(pairs(("#### 1", "1"), ("#### 2", "2")), ["exact_match"], GSM8K)
    assert (found.values["exact_match"], found.matches) == (None, [None, None])
    assert found.notes == ["the pattern is in none of the 2 references: there is no exact match"]


def test_references_are_looked_at_before_anything_is_trained() -> None:
    require_references(["one", REFERENCE], GSM8K)
    require_references(["one"], None)
    with pytest.raises(UserError) as raised:
        require_references(["x" * 1000 + "the answer is 72", "7"], GSM8K)
    assert GSM8K in raised.value.message
    assert "in none of the 2 references" in raised.value.message
    assert raised.value.message.endswith("the answer is 72'")
    assert len(raised.value.message) < 400
    assert raised.value.help


def test_a_search_that_takes_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "LIMIT", 0.05)
    begun = time.monotonic()
    found = score(pairs(("a" * 60, "aab"), ("aab", "aab")), ["exact_match"], CATASTROPHE)
    assert time.monotonic() - begun < 60
    assert (found.matches, found.values["exact_match"]) == ([False, True], 0.5)
    assert found.notes == ["the search for the pattern was given up in 1 texts, after 0.05 s each"]
    with pytest.raises(UserError, match=r"takes longer than 0\.05 s in reference 1"):
        require_references(["a" * 60], CATASTROPHE)


def test_a_pattern_that_is_always_given_up_gives_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "LIMIT", 0.02)
    found = score(pairs(*[("a" * 60, "aab")] * 100), ["exact_match"], CATASTROPHE)
    assert (found.values["exact_match"], set(found.matches)) == (None, {None})
    assert found.notes == ["the pattern takes longer than 0.02 s in 11 texts: there is no exact match"]


def test_the_time_limit_leaves_signals_as_they_were() -> None:
    code = (
        "import signal; from sftc.runtime.answers.exact import exact_match\n"
        "mine = lambda *_: None; signal.signal(signal.SIGALRM, mine)\n"
        "exact_match(['1'], ['1'], '1')\n"
        "assert signal.getsignal(signal.SIGALRM) is mine\n"
        "assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_other_threads_search_without_a_limit() -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(score(pairs(("#### 1", "#### 1.0")), ["exact_match"], GSM8K)))
    thread.start()
    thread.join(timeout=60)
    assert found[0].values == {"exact_match": 1.0}


NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, places=2)


@settings(deadline=None)  # of a busy machine
@given(number=NUMBERS)
def test_spellings_of_a_number_are_equal(number: Any) -> None:
    texts = pairs((f"{number:,}", f"{number}"), (f"{number}.", f"{number:f}00"))
    assert score(texts[:1], ["exact_match"], None).matches == [True]
    assert score(texts[1:], ["exact_match"], None).matches == [True]


@settings(deadline=None)  # of a busy machine
@given(texts=st.lists(st.text(), min_size=1, max_size=5))
def test_references_match_themselves(texts: list[str]) -> None:
    found = score(pairs(*zip(texts, texts, strict=True)), ["exact_match"], None)
    assert found.values == {"exact_match": 1.0}


LONG = ["The cat sat on the mat, and slept.", "A dog ran over the green field."]
CLOSE = ["The cat sat on a mat and slept.", "A dog ran over the field."]


def library(name: str) -> Any:
    return pytest.importorskip(name, reason="needs the extra `metrics`")


@settings(deadline=None)  # of a busy machine
@given(texts=st.lists(st.sampled_from([*LONG, *CLOSE, REFERENCE]), min_size=1, max_size=4))
def test_references_are_perfect_answers(texts: list[str]) -> None:
    library("sacrebleu"), library("rouge_score")
    found = score(pairs(*zip(texts, texts, strict=True)), ALL, None)
    wanted = {"exact_match": 1, "bleu": 100, "chrf": 100, "rouge1": 1, "rouge2": 1, "rougeL": 1}
    assert found.values == pytest.approx(wanted)
    assert found.notes == []


def test_bleu_and_chrf_are_those_of_sacrebleu() -> None:
    sacrebleu = library("sacrebleu")
    found = score(pairs(*zip(CLOSE, LONG, strict=True)), ["bleu", "chrf"], None)
    assert found.values["bleu"] == sacrebleu.corpus_bleu(CLOSE, [LONG]).score
    assert found.values["chrf"] == sacrebleu.corpus_chrf(CLOSE, [LONG]).score
    # By hand: n-grams in common of n = 1 to 4, and the penalty for 16 tokens beside 18.
    by_hand = (15 / 16 * 10 / 14 * 6 / 12 * 3 / 10) ** 0.25 * math.exp(1 - 18 / 16)
    assert found.values["bleu"] == pytest.approx(100 * by_hand)
    of_version = f"version:{version('sacrebleu')}"
    assert found.definitions["bleu"] == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|{of_version}"
    assert found.definitions["chrf"] == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|{of_version}"


def test_rouge_is_that_of_rouge_score() -> None:
    library("rouge_score")
    from rouge_score.rouge_scorer import RougeScorer

    found = score(pairs(*zip(CLOSE, LONG, strict=True)), ["rouge"], None)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    own = [scorer.score(reference, text) for reference, text in zip(LONG, CLOSE, strict=True)]
    assert found.values == pytest.approx({name: sum(one[name].fmeasure for one in own) / 2 for name in own[0]})
    # By hand: 7 of 8 and 8 words in common, 6 of 6 and 7; of pairs 5 of 7 and 7, 4 of 5 and 6.
    assert found.values["rouge1"] == pytest.approx((7 / 8 + 12 / 13) / 2)
    assert found.values["rouge2"] == pytest.approx((5 / 7 + 8 / 11) / 2)
    assert found.definitions["rouge"].startswith(f"rouge-score {version('rouge-score')}, F-measure")


def test_figures_that_see_nothing_in_the_references_are_not_zero() -> None:
    """A number is one word: BLEU looks at four, rouge2 at two; rouge-score reads a-z and 0-9 alone."""
    library("sacrebleu"), library("rouge_score")
    found = score(pairs(("72", "72"), ("7", "7")), ALL, None)
    assert found.values == {"exact_match": 1, "bleu": None, "chrf": 100, "rouge1": 1, "rouge2": None, "rougeL": 1}
    assert len(found.notes) == 2
    found = score(pairs(("猫", "猫"), ("a", "a")), ["rouge"], None)
    assert found.values == {"rouge1": 0.5, "rouge2": None, "rougeL": 0.5}
    assert "1 of the 2 references have not a word of a-z and 0-9: in rouge1 they count 0" in found.notes


def test_empty_answers_are_scored() -> None:
    library("sacrebleu"), library("rouge_score")
    found = score(pairs(("", LONG[0]), ("", LONG[1])), ALL, None)
    assert found.values == {"exact_match": 0, "bleu": 0, "chrf": 0, "rouge1": 0, "rouge2": 0, "rougeL": 0}


def test_only_what_is_asked_for_is_computed_and_imported() -> None:
    code = (
        "import sys; from sftc.runtime.answers.answer import Answer; from sftc.runtime.answers.scores import score\n"
        "one = Answer(row=0, question='', prompt='', reference='a', answer='a', finish_reason='stop', tokens=1)\n"
        "found = score([one], ['exact_match', 'token_accuracy', 'perplexity'], None)\n"
        "assert found.values == {'exact_match': 1.0} and list(found.definitions) == ['exact_match'], found\n"
        "assert not {'sacrebleu', 'rouge_score', 'nltk', 'numpy', 'torch'} & set(sys.modules)\n"
        "assert score([one], ['perplexity'], None).matches == [None]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_values_are_figures_that_hooks_may_not_take() -> None:
    library("sacrebleu"), library("rouge_score")
    assert set(score(pairs(("a", "a")), ALL, None).values) <= set(METRICS)


@pytest.mark.parametrize(("metric", "absent"), [("bleu", "sacrebleu"), ("chrf", "sacrebleu"), ("rouge", "rouge_score")])
def test_a_library_that_is_missing_is_told(metric: str, absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> object:
        return None if name == absent else find_spec(name)

    monkeypatch.setattr("sftc.runtime.answers.overlap.find_spec", find)
    require_libraries(["exact_match", "token_accuracy", "perplexity"])
    with pytest.raises(UserError, match=f"asks for `{metric}`") as raised:
        require_libraries(["exact_match", metric])
    assert raised.value.help == f"pip install 'sftc[metrics]', or leave `{metric}` out"


SECTION = {
    "samples": 64,
    "when": "evaluation",
    "max_new_tokens": 256,
    "batch_size": 8,
    "temperature": 0.0,
    "top_k": None,
    "top_p": None,
    "seed": None,
    "answer_pattern": None,
    "metrics": ["exact_match"],
}


def settings_of(**changes: Any) -> Settings | None:
    values = {f"eval.generate.{key}": one for key, one in {**SECTION, **changes}.items()} | {"train.seed": 42}
    return Settings.of(json.loads(json.dumps(values)).__getitem__)


def test_settings() -> None:
    found = settings_of()
    assert found is not None
    assert (found.seed, found.metrics, found.samples) == (42, ("exact_match",), 64)
    assert getattr(settings_of(seed=0), "seed", None) == 0
    assert settings_of(**dict.fromkeys(SECTION)) is None
