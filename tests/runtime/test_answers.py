"""Which conversations are asked, how the next token is chosen, and how answers are put together."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch")

from sftc.runtime.answers import commands  # noqa: E402
from sftc.runtime.answers.evaluate import _stops  # noqa: E402
from sftc.runtime.answers.generate import generate  # noqa: E402
from sftc.runtime.answers.generated import Limits  # noqa: E402
from sftc.runtime.answers.measure import Measured, measure  # noqa: E402
from sftc.runtime.answers.questions import Question, Questions, find_questions  # noqa: E402
from sftc.runtime.answers.sampling import choose, draws_of  # noqa: E402
from sftc.runtime.answers.wording import Wording  # noqa: E402
from sftc.runtime.data.dataset import PreparedData  # noqa: E402
from sftc.runtime.data.facts import TemplateFacts  # noqa: E402
from sftc.runtime.data.indexed import IndexedWriter  # noqa: E402
from sftc.runtime.data.prepare import prepare  # noqa: E402
from sftc.runtime.data.settings import DataSettings  # noqa: E402
from sftc.runtime.data.template import ChatTemplate, TemplateText, find_template  # noqa: E402
from sftc.runtime.data.tokens import TextTokenizer  # noqa: E402
from sftc.runtime.errors import UserError  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "recipes/quickstart"
TOKENIZERS = [QUICKSTART / "tokenizer", *(ROOT.parent / "shared/tokenizers" / name for name in ("smollm2", "qwen3"))]
GREEDY = SimpleNamespace(temperature=0.0, top_k=None, top_p=None)


def settings(folder: Path, tokenizer: Path, **changes: Any) -> DataSettings:
    fields: dict[str, Any] = {"seq_length": 256, "vocab_size": 1 << 20, **changes}
    return DataSettings(
        valid_data_path=QUICKSTART / "valid.jsonl", store_path=folder / "store", tokenizer_path=tokenizer, **fields
    )


def stops_of(data: PreparedData, tokenizer: TextTokenizer) -> tuple[frozenset[int], frozenset[int]]:
    """What ends a turn, and all special tokens."""
    ends = frozenset(tokenizer.backend.token_to_id(text) for text in data.summary["end_of_turn"])
    return ends, frozenset(tokenizer.backend.token_to_id(text) for text in tokenizer.special_texts)


@pytest.mark.parametrize("path", TOKENIZERS, ids=lambda path: path.name)
def test_a_question_is_the_row_before_its_last_answer(path: Path, tmp_path: Path) -> None:
    """For every row: the prompt is what the template renders for generation, the reference is the message."""
    if not path.is_dir():
        pytest.skip(f"needs {path}")
    data = PreparedData.open(prepare(settings(tmp_path, path)).store)
    tokenizer = TextTokenizer.load(path, 1 << 20)
    template = ChatTemplate(find_template(path, tokenizer.config, None), tokenizer.special_tokens)
    wording = Wording(TemplateFacts(template, tokenizer.special))
    found = find_questions(data, *stops_of(data, tokenizer), samples=80, positions=256)
    rows = [json.loads(line)["messages"] for line in (QUICKSTART / "valid.jsonl").read_text().splitlines()]
    assert len(found.asked) == len(rows) == 80
    for one, messages in zip(found.asked, rows, strict=True):
        prompt = tokenizer.decode(one.prompt)
        assert prompt == template.render(messages[:-1], add_generation_prompt=True)
        assert wording.question(prompt) == messages[-2]["content"]
        reference = tokenizer.decode(one.tokens[one.start : one.end].tolist())
        assert reference.startswith(messages[-1]["content"]) or "</think>" in reference
        assert one.last in found.stops


def test_samples_are_spread_evenly_and_always_the_same(tmp_path: Path) -> None:
    data = PreparedData.open(prepare(settings(tmp_path, TOKENIZERS[0])).store)
    ends = stops_of(data, TextTokenizer.load(TOKENIZERS[0], 512))
    asked = [one.row for one in find_questions(data, *ends, samples=5, positions=256).asked]
    assert asked == [0, 16, 32, 48, 64]
    assert len(find_questions(data, *ends, samples=500, positions=256).asked) == 80


def test_rows_without_a_whole_answer_are_counted(tmp_path: Path) -> None:
    cut = settings(tmp_path, TOKENIZERS[0], seq_length=40, on_overlong="truncate_right", on_bad_row="skip")
    data = PreparedData.open(prepare(cut).store)
    ends = stops_of(data, TextTokenizer.load(TOKENIZERS[0], 512))
    found = find_questions(data, *ends, samples=80, positions=30)
    kept = data.rows("valid")
    assert found.cut > 0
    assert found.full > 0
    assert len(found.asked) == kept - found.cut - found.full
    assert [str(count) in note for count, note in zip((found.cut, found.full), found.notes, strict=True)] == [True] * 2
    with pytest.raises(UserError, match="none of") as error:
        find_questions(data, *ends, samples=80, positions=1)
    assert "eval.generate" in str(error.value.help)


def test_an_answer_that_is_cut_at_a_special_token_is_no_whole_one(tmp_path: Path) -> None:
    """9 ends turns and 8 is special: it ends the shorter row, and the other one was cut behind it."""
    rows = [[1, 2, 8], [1, 2, 3, 4, 8], [1, 2, 3, 4, 9]]
    for kind, written in (("tokens", rows), ("mask", [[0, 1, 1], *[[0, 1, 1, 1, 1]] * 2])):
        with IndexedWriter(tmp_path / f"valid.{kind}", np.dtype(np.uint8)) as writer:
            for row in written:
                writer.add(np.array(row, np.uint8))
    summary = {"settings": {"seq_length": 4}, "splits": {"valid": {"kept": 3}}}
    data: Any = SimpleNamespace(store=tmp_path, summary=summary, rows=lambda _: 3)
    found = find_questions(data, frozenset({9}), frozenset({8, 9}), samples=3, positions=9)
    assert ([one.row for one in found.asked], found.cut) == ([0, 2], 1)


def test_what_is_no_message_of_the_template_is_shown_as_it_is() -> None:
    assert Wording(None).question("  Q: 3 + 4\nA:") == "Q: 3 + 4\nA:"


def test_greedy_takes_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, -1.0, 2.0]])
    assert choose(logits, GREEDY, [0.9, 0.9]).tolist() == [1, 0]


def test_draws_follow_the_probabilities() -> None:
    """And top_k and top_p leave out what they name."""
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    numbers = draws_of(7, 3).random(20_000)

    def shares(**limits: Any) -> dict[int, float]:
        sampling = SimpleNamespace(**{"temperature": 0.5, "top_k": None, "top_p": None, **limits})
        drawn = choose(logits.expand(len(numbers), -1), sampling, numbers).tolist()
        return {token: count / len(numbers) for token, count in Counter(drawn).items()}

    wanted = torch.softmax(logits[0] / 0.5, 0)
    found = shares()
    assert [found.get(token, 0.0) for token in range(4)] == pytest.approx(wanted.tolist(), abs=0.01)
    assert shares(top_k=1) == {3: 1.0}
    assert set(shares(top_k=2)) == {2, 3}
    assert set(shares(top_p=0.9)) == {2, 3}  # 0.865 are not enough
    assert set(shares(top_p=0.8)) == {3}
    assert shares(top_k=2)[3] == pytest.approx(float(wanted[3] / (wanted[2] + wanted[3])), abs=0.01)


@pytest.mark.parametrize("limits", [{}, {"top_k": 2, "top_p": 0.5}])
def test_a_model_that_has_diverged_answers_something(limits: dict[str, Any]) -> None:
    sampling = SimpleNamespace(**{"temperature": 1.0, "top_k": None, "top_p": None, **limits})
    logits = torch.tensor([[torch.nan] * 4, [torch.inf] * 4, [0.0, 0.0, 50.0, 0.0]])
    found = choose(logits, sampling, [0.5] * 3).tolist()
    assert found[2] == 2
    assert set(found) <= set(range(4))


@pytest.mark.parametrize(("loss", "perplexity"), [(0.0, 1.0), (np.inf, np.inf), (1e3, np.inf), (np.nan, np.nan)])
def test_a_perplexity_is_a_number_where_the_loss_is_one(loss: float, perplexity: float) -> None:
    assert Measured(loss=loss, accuracy=0.0, tokens=1).perplexity == pytest.approx(perplexity, nan_ok=True)


def test_a_conversation_has_its_own_random_numbers() -> None:
    assert draws_of(1, 5).random() == draws_of(1, 5).random()
    assert len({draws_of(seed, row).random() for seed in (1, 2) for row in (5, 6)}) == 4


END, VOCAB = 9, 10


class Toy:
    """In the place of a model: the next token is one more than the last, by the tokens it has seen; of one copy."""

    def __init__(self, copies: int = 1, copy: int = 0) -> None:
        self.copies, self.copy, self.device, self.knows, self.copies_group = copies, copy, "cpu", True, None
        self.asked: list[list[list[int]]] = []

    def cache(self, rows: int, length: int, *, every_logit: bool = False) -> SimpleNamespace:
        return SimpleNamespace(rows=rows, length=length, every_logit=every_logit, filled=0)

    def logits(self, tokens: Any, cache: SimpleNamespace) -> Any:
        assert tokens.shape[0] == cache.rows
        cache.filled += tokens.shape[1]
        assert cache.filled <= cache.length, "more than the cache holds"
        self.asked.append(tokens.tolist())
        logits = torch.nn.functional.one_hot((tokens + 1) % VOCAB, VOCAB).float() * 5
        return logits if cache.every_logit else logits[:, -1:]

    def shared(self, tokens: Any) -> Any:
        return tokens

    def all_done(self, done: bool) -> bool:
        return done

    def gathered(self, own: Any) -> list[Any]:
        return [own]


def question(row: int, prompt: list[int], reference: list[int]) -> Question:
    tokens = np.array([*prompt, *reference])
    mask = np.array([0] * len(prompt) + [1] * len(reference), np.uint8)
    return Question(row=row, tokens=tokens, mask=mask, start=len(prompt), end=len(tokens))


def ask(model: Any, questions: Sequence[Question], **limits: int) -> list[tuple[list[int], str]]:
    whole = Questions(asked=tuple(questions), stops=frozenset({END}), cut=0, full=0)
    bounds = {"new": 20, "positions": 100, "rows": 2, "vocab": VOCAB, "seed": 1, **limits}
    return [(list(one.tokens), one.finish_reason) for one in generate(model, whole, GREEDY, Limits(**bounds))]


QUESTIONS = [question(0, [1, 2, 3], [4, END]), question(1, [7], [8, END]), question(2, [5, 5, 5, 5, 6], [7, END])]


def test_answers_end_with_the_end_of_the_turn() -> None:
    """Prompts of different lengths share a batch, and each is read whole."""
    found = ask(Toy(), QUESTIONS, rows=3)
    assert found == [([4, 5, 6, 7, 8, 9], "stop"), ([8, 9], "stop"), ([7, 8, 9], "stop")]
    assert found == ask(Toy(), QUESTIONS, rows=1)


def test_an_answer_ends_at_the_limit() -> None:
    assert ask(Toy(), QUESTIONS, new=2) == [([4, 5], "length"), ([8, 9], "stop"), ([7, 8], "length")]
    # The model sees seven positions: five of the prompt leave two.
    assert ask(Toy(), QUESTIONS, positions=7) == [([4, 5, 6, 7], "length"), ([8, 9], "stop"), ([7, 8], "length")]


def test_another_row_s_end_ends_no_answer() -> None:
    """A call, say, that ends with a token of its own: answers depend on their row, and not on which rows are asked."""
    call = question(3, [7], [8, 7])
    assert ask(Toy(), [*QUESTIONS, call], rows=4)[:3] == ask(Toy(), QUESTIONS)
    whole = Questions(asked=(*QUESTIONS, call), stops=frozenset({END}), cut=0, full=0)
    assert [whole.ends(one) for one in whole.asked] == [{END}] * 3 + [{END, 7}]
    assert ask(Toy(), [question(3, [7], [5, 8])], rows=2) == [([8], "stop")]


def test_a_call_that_ends_otherwise_ends_every_answer_of_its_template() -> None:
    tokenizer = TextTokenizer.load(TOKENIZERS[0], 512)
    call = "{% if m.tool_calls %}{{ m.tool_calls[0].function.name }} {{ m.tool_calls[0].function.arguments | tojson }}"
    text = (
        "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}" + call + "<|pad|>\n"
        "{% else %}<|end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    )
    source = TemplateText(default=text, source="made up")
    facts = TemplateFacts(ChatTemplate(source, tokenizer.special_tokens), tokenizer.special)
    end, other = (tokenizer.backend.token_to_id(name) for name in ("<|end|>", "<|pad|>"))
    stored: Any = SimpleNamespace(summary={"end_of_turn": ["<|end|>"]})
    tokens: Any = SimpleNamespace(summary={})
    tokenizer = replace(tokenizer, eos_id=None)
    assert _stops(stored, facts, tokenizer) == {end, other}
    assert _stops(stored, None, tokenizer) == {end}
    assert _stops(tokens, facts, tokenizer) == frozenset()


def test_ids_that_the_tokenizer_does_not_know_are_never_chosen() -> None:
    assert ask(Toy(), [question(0, [6], [7, END])], vocab=8, new=3) == [([7, 0, 1], "length")]


def test_copies_of_a_model_go_in_step() -> None:
    """They share the questions, and ask with batches of one shape even where one has fewer rows."""
    models = [Toy(copies=2, copy=copy) for copy in range(2)]
    shapes = []
    for model in models:
        with pytest.raises(KeyError):  # a question of the other copy, which has not been answered here
            ask(model, QUESTIONS, rows=2)
        shapes.append([(len(batch), len(batch[0])) for batch in model.asked])
    assert {shape[0] for model in shapes for shape in model} == {2}
    assert shapes[0][0] == shapes[1][0] == (2, 1)


def test_references_are_rated_as_they_are_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy is right about 4 and 8 of `4, END`, `8, END` and `7, END`, and about 7: loss by hand."""
    reduce: Callable[..., None] = lambda *_, **__: None  # noqa: E731
    monkeypatch.setattr(torch.distributed, "all_reduce", reduce)
    found = measure(Toy(), QUESTIONS, capacity=8)  # type: ignore[arg-type]
    right = float(torch.logsumexp(torch.tensor([5.0] + [0.0] * 9), 0)) - 5
    assert found is not None
    assert found.tokens == 6
    assert found.accuracy == pytest.approx(4 / 6)  # of the second row its END too: it follows on 8
    assert found.loss == pytest.approx((4 * right + 2 * (right + 5)) / 6)
    assert found.perplexity == pytest.approx(np.exp(found.loss))


SAME = {"torch": "2.9.0", "megatron-core": "0.19.0", "numpy": "1"}


@pytest.mark.parametrize(
    ("there", "end"),
    [
        ({**SAME, "numpy": "2"}, "torch and Megatron are those of the run"),
        ({**SAME, "torch": "2.8.0"}, "torch 2.9.0 here, 2.8.0 there"),
        (
            {"torch": "2.8.0", "transformer-engine": "2.5"},
            "torch 2.9.0 here, 2.8.0 there; transformer-engine is missing here, 2.5 there",
        ),
        (None, "with the libraries of this environment"),
    ],
)
def test_what_answers_outside_of_a_runs_container_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: dict[str, str] | None, end: str
) -> None:
    monkeypatch.delenv("SFTC_IN_CONTAINER", raising=False)
    monkeypatch.setattr(commands, "packages", lambda: SAME)
    facts = {} if there is None else {"packages": there}
    (tmp_path / "run.json").write_text(json.dumps({"starts": [{"packages": {"torch": "0.1"}}, facts]}))

    def said(engine: str | None) -> str | None:
        bundle: Any = SimpleNamespace(value={"launch.container.engine": engine}.get)
        return commands._outside(bundle, tmp_path)

    assert said("podman") == f"sftc eval: outside of the run's container (`launch.container`, podman): {end}"
    assert said(None) is None
    monkeypatch.setenv("SFTC_IN_CONTAINER", "1")
    assert said("podman") is None
