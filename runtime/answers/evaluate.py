"""An evaluation by answers: asked, compared with the references, and told."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..bundle import Bundle
from ..data.facts import TemplateFacts
from ..data.settings import DataSettings
from ..data.template import ChatTemplate, find_template
from ..data.tokens import TextTokenizer
from ..errors import UserError
from ..hooks import hook_of
from .answer import Answer, Evaluated, described
from .generated import Generated, Limits
from .questions import Question, Questions, Stored, find_questions
from .scores import require_libraries, require_references, score
from .settings import Settings
from .wording import Wording

RATED = {
    "token_accuracy": "share of the tokens trained on in these rows that are the likeliest after those before",
    "perplexity": "e to the mean cross entropy of the tokens that are trained on in these rows",
}


class Evaluation:
    """Asks the same questions each time it is called with the model chunks of this rank; all ranks at once."""

    def __init__(self, bundle: Bundle, settings: Settings, data: Stored, *, reports: bool) -> None:
        """reports: whether this rank is the one that tells. UserError if nothing can be asked, or nothing compared."""
        value = bundle.value
        self._settings, self._reports = settings, reports
        self._tokenizer = tokenizer = TextTokenizer.load(Path(value("tokenizer.path")), value("model.vocab_size"))
        facts = _facts(bundle, tokenizer)
        self._wording = Wording(facts)
        self._limits = Limits(
            new=settings.max_new_tokens,
            positions=int(value("model.max_position_embeddings")),
            rows=settings.batch_size,
            vocab=tokenizer.size,
            seed=settings.seed,
        )
        self._capacity = int(value("train.micro_batch_size")) * int(data.summary["settings"]["seq_length"])
        self.questions: Questions = find_questions(
            data,
            _stops(data, facts, tokenizer),
            _ids(tokenizer, tokenizer.special_texts),
            samples=settings.samples,
            positions=self._limits.positions,
        )
        require_libraries(settings.metrics)
        if "exact_match" in settings.metrics and settings.answer_pattern is not None:
            require_references([self._reference(one) for one in self.questions.asked], settings.answer_pattern)
        self._hook = hook_of(bundle.plan, "answer_metrics", bundle.path)

    def __call__(self, chunks: Sequence[Any]) -> Evaluated | None:
        """None on ranks that tell nothing."""
        from ..megatron.inference import Asked, whole_sequences
        from .generate import generate
        from .measure import measure

        questions = self.questions
        with whole_sequences(chunks):
            asked = Asked(chunks)
            generated = generate(asked, questions, self._settings, self._limits)
            measured = measure(asked, questions.asked, capacity=self._capacity)
        if measured is None or not self._reports:
            return None
        answers = [self._answer(question, one) for question, one in zip(questions.asked, generated, strict=True)]
        settings = self._settings
        scores = score(answers, settings.metrics, settings.answer_pattern)
        matches = scores.matches if "exact_match" in settings.metrics else None
        rated = {"token_accuracy": measured.accuracy, "perplexity": measured.perplexity}
        rated = {name: value for name, value in rated.items() if name in settings.metrics}
        values = {
            **scores.values,
            **rated,
            **(self._hook(described(answers, matches)) if self._hook is not None else {}),
            "answers": len(answers),
            "unfinished": sum(answer.finish_reason == "length" for answer in answers),
        }
        return Evaluated(
            loss=measured.loss,
            answers=answers,
            matches=matches,
            values=values,
            definitions={**scores.definitions, **{name: text for name, text in RATED.items() if name in rated}},
            notes=[*questions.notes, *scores.notes],
        )

    def _answer(self, question: Question, generated: Generated) -> Answer:
        prompt = self._tokenizer.decode(question.prompt)
        return Answer(
            row=question.row,
            question=self._wording.question(prompt),
            prompt=prompt,
            reference=self._reference(question),
            answer=self._text(question, list(generated.tokens)),
            finish_reason=generated.finish_reason,
            tokens=len(generated.tokens),
        )

    def _reference(self, question: Question) -> str:
        return self._text(question, question.tokens[question.start : question.end].tolist())

    def _text(self, question: Question, ids: list[int]) -> str:
        """Without the token that ends it."""
        return self._tokenizer.decode(ids[:-1] if ids and ids[-1] in self.questions.ends(question) else ids)


def _ids(tokenizer: TextTokenizer, texts: Iterable[str]) -> frozenset[int]:
    found = (tokenizer.backend.token_to_id(text) for text in texts)
    return frozenset(number for number in found if number is not None)


def _stops(data: Stored, facts: TemplateFacts | None, tokenizer: TextTokenizer) -> frozenset[int]:
    """What ends a turn of the chat template, one with a tool call too, and what ends a text."""
    said = frozenset(data.summary.get("end_of_turn", ()))  # of rows that came as tokens nothing is known
    ends = _ids(tokenizer, said | facts.call_end_tokens if said and facts else said)
    return ends if tokenizer.eos_id is None else ends | {tokenizer.eos_id}


def _facts(bundle: Bundle, tokenizer: TextTokenizer) -> TemplateFacts | None:
    settings = DataSettings.from_plan(bundle.value, bundle.path)
    try:
        text = find_template(settings.tokenizer_path, tokenizer.config, settings.chat_template_path)
        return TemplateFacts(ChatTemplate(text, tokenizer.special_tokens), tokenizer.special)
    except UserError:  # rows that came as tokens need none, or not one that can be understood
        return None
