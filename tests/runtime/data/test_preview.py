"""What a preview shows is what is in the store: each token once, and as trained on exactly where the mask says so."""

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sftc.runtime.data import preview_page, preview_text, stats
from sftc.runtime.data.figures import MOST_BARS, measure
from sftc.runtime.data.indexed import IndexedReader
from sftc.runtime.data.prepare import Prepared, prepare
from sftc.runtime.data.preview import Shown, Token, read_samples
from sftc.runtime.data.reasons import REASONS
from sftc.runtime.data.tokens import TextTokenizer
from sftc.runtime.data.visible import visible, width, without_folders
from sftc.runtime.errors import UserError

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e\t日🎉\nend"


@pytest.fixture
def prepared(settings: Callable[..., Any], write_rows: Callable[..., Path], pair: Callable[..., Any]) -> Prepared:
    write_rows("train.jsonl", [pair("hi", "yes"), pair(HOSTILE, HOSTILE), pair("hi", "yes"), {"wrong": 1}])
    write_rows("valid.jsonl", [pair("a", "b" * 300)])
    path = settings().train_data_path.with_name("valid.jsonl")
    return prepare(settings(valid_data_path=path, on_bad_row="skip", on_overlong="truncate_right", seq_length=200))


@pytest.fixture
def shown(prepared: Prepared, tokenizer: TextTokenizer) -> list[Shown]:
    return read_samples(prepared.store, prepared.summary, tokenizer, "train", 1, 5)


def test_samples_are_those_of_the_store(prepared: Prepared, shown: list[Shown], tokenizer: TextTokenizer) -> None:
    tokens, masks = IndexedReader(prepared.store / "train.tokens"), IndexedReader(prepared.store / "train.mask")
    assert [sample.row for sample in shown] == [1, 2, 3]
    for row, sample in enumerate(shown):
        assert [token.id for token in sample.tokens] == tokens[row].tolist()
        assert [token.trained for token in sample.tokens] == masks[row].astype(bool).tolist()
        assert "".join(token.text for token in sample.tokens) == tokenizer.decode(tokens[row].tolist())
        assert {token.text for token in sample.tokens if token.special} == {"<|im_start|>", "<|im_end|>"}
    assert "".join(token.text for token in shown[1].tokens if token.trained) == f"{HOSTILE}<|im_end|>"


def test_tokens_that_spell_one_character_are_told_apart(shown: list[Shown]) -> None:
    """The tokenizer's tokens are bytes: a character of n bytes is n tokens, the first of which has the text."""
    tokens = list(shown[1].tokens)
    for character in "日🎉":
        at = next(index for index, token in enumerate(tokens) if token.text == character)
        size = len(character.encode())
        assert [(token.text, token.part, token.parts) for token in tokens[at : at + size]] == [
            (character if part == 1 else "", part, size) for part in range(1, size + 1)
        ]


def test_a_first_token_is_no_label(
    settings: Callable[..., Any], write_rows: Callable[..., Path], tokenizer: TextTokenizer
) -> None:
    write_rows("train.jsonl", [{"text": "abc"}])
    prepared = prepare(settings(format="text"))
    (sample,) = read_samples(prepared.store, prepared.summary, tokenizer, "train", 1, 1)
    assert [token.trained for token in sample.tokens] == [False, True, True, True]
    assert sample.trained == prepared.summary["splits"]["train"]["supervised_tokens"] == 3
    assert sample.headline == "4 tokens, 3 of 3 labels trained on (100%)"


def test_a_sample_that_is_not_there(prepared: Prepared, tokenizer: TextTokenizer) -> None:
    assert len(read_samples(prepared.store, prepared.summary, tokenizer, "train", 3, 5)) == 1
    with pytest.raises(UserError, match="numbered from 1 to 3"):
        read_samples(prepared.store, prepared.summary, tokenizer, "train", 4, 1)
    alone = {"splits": {"train": {}}}
    with pytest.raises(UserError, match=r"data\.valid_data_path"):
        read_samples(prepared.store, alone, tokenizer, "valid", 1, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" a b", " a b"),
        ("  ", "··"),
        ("a\n", "a⏎"),
        ("\t\x1b[2J\x07\x7f", "⇥␛[2J␇␡"),
        ("\u202eabc\u200b\u00a0\u2028\x9b", "⟨U+202E⟩abc⟨U+200B⟩⟨U+00A0⟩⟨U+2028⟩⟨U+009B⟩"),
        ("\u0301", "◌\u0301"),
        ("é日🎉", "é日🎉"),
    ],
)
def test_everything_is_to_be_seen(text: str, expected: str) -> None:
    assert visible(text) == expected
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", visible(text))


def test_width_is_that_of_a_terminal() -> None:
    assert [width(text) for text in ("ab", "日本", "e\u0301", "")] == [2, 4, 1, 0]


def sample(*words: tuple[str, bool]) -> Shown:
    tokens = tuple(Token(id=7, text=text, trained=trained, special=False) for text, trained in words)
    return Shown(split="train", row=1, tokens=tokens)


def test_without_colour_borders_and_marks_are_in_place() -> None:
    tokens = sample(
        ("You", False), (" say", False), ("\n", False), ("日本", True), ("ok", True), ("?", False), ("!", True)
    )
    assert preview_text.terminal([tokens], colour=False, columns=100).splitlines()[2:] == [
        "train sample 1: 7 tokens, 3 of 6 labels trained on (50%)",
        "│You│ say│⏎│",
        "│日本│ok│?│!│",
        " ‾‾‾‾ ‾‾   ‾",
    ]


def test_lines_fit_the_terminal(shown: list[Shown]) -> None:
    for columns in (30, 80):
        text = preview_text.terminal(shown, colour=False, columns=columns)
        assert all(width(line) <= columns for line in text.splitlines() if line.startswith("│"))


def test_colour_says_the_same(shown: list[Shown]) -> None:
    """Two grounds for each state, alternating, so that borders are seen; no text but the tokens'."""
    text = preview_text.terminal(shown[1:2], colour=True, columns=60)
    body = text.split("\n", 3)[3]
    cells = re.findall(r"\x1b\[(38;5;\d+;48;5;\d+)m([^\x1b]*)", body)
    states = {style.removeprefix("\x1b[").removesuffix("m"): True for style in preview_text.TRAINED}
    states |= {style.removeprefix("\x1b[").removesuffix("m"): False for style in preview_text.OTHER}
    assert [states[style] for style, _ in cells] == [token.trained for token in shown[1].tokens]
    assert all(left[0] != right[0] for left, right in pairwise(cells))
    assert "\x1b[31m" not in text


def test_histograms_count_every_sample_once(prepared: Prepared) -> None:
    figures = measure(prepared.store, ["train", "valid"])
    assert figures["train"].lengths.borders == figures["valid"].lengths.borders
    for split, kept in (("train", 3), ("valid", 1)):
        assert sum(figures[split].lengths.counts) == sum(figures[split].shares.counts) == kept
        length = prepared.summary["splits"][split]["length"]
        taken = [bar for bar in figures[split].lengths.to_json() if bar[2]]
        assert taken[0][0] <= length["min"] < taken[0][1]
        assert taken[-1][0] <= length["max"] < taken[-1][1]
        share = prepared.summary["splits"][split]["supervised_share"]
        taken = [bar for bar in figures[split].shares.to_json() if bar[2]]
        assert taken[0][0] <= share["min"] <= taken[0][1]
        assert taken[-1][0] <= share["max"] <= taken[-1][1]
    assert len(figures["train"].lengths.counts) <= MOST_BARS


def test_statistics_and_page_are_the_same_wherever_they_are_made(
    prepared: Prepared, shown: list[Shown], tmp_path: Path
) -> None:
    figures = measure(prepared.store, list(prepared.summary["splits"]))
    found = stats.statistics("run", prepared.summary, figures)
    page = preview_page.page(found, prepared.notices, shown)
    for made in (found, page):
        assert str(tmp_path) not in json.dumps(made)
        assert not re.search(r"\d\d:\d\d|20\d\d-\d\d-\d\d", json.dumps({**made, "template_date": None}))
    assert found["splits"]["train"]["first_bad_rows"][0].startswith("train.jsonl:4: no-column ")
    assert without_folders("in `/a/b/c.jinja` and `x/y`") == "in `c.jinja` and `x/y`"


def test_the_page_counts_what_was_dropped_and_cut(prepared: Prepared, shown: list[Shown]) -> None:
    figures = measure(prepared.store, list(prepared.summary["splits"]))
    page = preview_page.page(stats.statistics("run", prepared.summary, figures), prepared.notices, shown)
    train, valid = page["splits"]
    assert [(item["what"], item["count"]) for item in train["lost"]] == [("no-column", "1"), ("repeated", "1")]
    assert [(item["what"], item["count"]) for item in valid["lost"]] == [("cut", "1")]
    cut = prepared.summary["splits"]["valid"]["tokens_cut"]
    assert valid["lost"][0]["why"] == f"truncate_right: {cut} tokens are lost"
    assert sum(int(proof["count"]) for proof in train["proofs"]) == 3
    for chart in (*train["charts"], *valid["charts"]):
        for bar in chart["bars"]:
            assert chart["left"] <= bar["x"] <= bar["x"] + bar["width"] <= chart["right"]
            assert chart["top"] <= bar["y"] <= bar["y"] + bar["height"] <= chart["base"]


def test_the_reasons_are_those_of_the_documentation(repo_root: Path) -> None:
    documented = set(re.findall(r"`([a-z0-9-]+)`", (repo_root / "docs/data.md").read_text(encoding="utf-8")))
    assert set(REASONS) <= documented
