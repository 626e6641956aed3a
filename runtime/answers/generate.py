"""Answers, token by token, under every layout.

Each copy of the model (data-parallel and context-parallel ranks) answers its share of the conversations. The copies go
in step, with batches of one shape: ranks that share experts need each other at every step.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ..megatron.inference import Asked
from .generated import Generated, Limits
from .questions import Question, Questions
from .sampling import Sampling, choose, draws_of


def generate(asked: Asked, questions: Questions, sampling: Sampling, limits: Limits) -> list[Generated]:
    """An answer to each question, in their order. All ranks at once."""
    own: dict[int, Generated] = {}
    for shape, batch in rounds(asked, questions.asked, limits.rows):
        own |= _answer(asked, shape, batch, questions.ends, sampling, limits)
    found = {at: answer for part in asked.gathered(own) for at, answer in part.items()}
    return [found[at] for at in range(len(questions.asked))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is the same on all copies: `rows` of a batch; prompts have `shortest` to `longest` tokens."""

    rows: int
    shortest: int
    longest: int


def rounds(
    asked: Asked, questions: Sequence[Question], rows: int
) -> Iterator[tuple[Shape, list[tuple[int, Question]]]]:
    """What this copy of the model answers, batch by batch, each question with its number; those of like length
    together, because the shortest prompt of a batch decides how much of it is read at once. A batch may be empty.
    """
    order = sorted(range(len(questions)), key=lambda at: (questions[at].start, at))
    whole = rows * asked.copies
    for first in range(0, len(order), whole):
        now = order[first : first + whole]
        share = -(-len(now) // asked.copies)
        lengths = [questions[at].start for at in now]
        shape = Shape(rows=share, shortest=min(lengths), longest=max(lengths))
        yield shape, [(at, questions[at]) for at in now[asked.copy :: asked.copies]]


def _answer(
    asked: Asked,
    shape: Shape,
    batch: list[tuple[int, Question]],
    ends_of: Callable[[Question], frozenset[int]],
    sampling: Sampling,
    limits: Limits,
) -> dict[int, Generated]:
    """Rows whose prompt is longer go on reading it, token by token, while others answer already."""
    prompts = [question.prompt for _, question in batch]
    prompts += [[0] * shape.shortest] * (shape.rows - len(batch))  # fillers, where other copies have a row more
    draws = [draws_of(limits.seed, question.row) for _, question in batch]
    draws += [draws_of(limits.seed, 0)] * (shape.rows - len(batch))
    ends = [ends_of(question) for _, question in batch] + [frozenset[int]()] * (shape.rows - len(batch))
    answers: list[list[int]] = [[] for _ in prompts]
    most = [min(limits.new, limits.positions - len(prompt)) for prompt in prompts]
    done = [row >= len(batch) for row in range(shape.rows)]
    total = min(shape.longest + limits.new, limits.positions)
    cache = asked.cache(shape.rows, total)
    tokens = torch.tensor([prompt[: shape.shortest] for prompt in prompts], device=asked.device)
    for at in range(shape.shortest, total):
        logits = asked.logits(tokens, cache)
        chosen = torch.zeros(shape.rows, dtype=torch.int64, device=asked.device)
        if logits is not None:
            # The random numbers of a conversation are for its answer.
            numbers = [draw.random() if at >= len(prompt) else 0.0 for draw, prompt in zip(draws, prompts, strict=True)]
            chosen = choose(logits[:, -1, : limits.vocab], sampling, numbers)
        following = asked.shared(chosen).tolist()
        for row, prompt in enumerate(prompts):
            if at < len(prompt):
                following[row] = prompt[at]
            elif not done[row]:
                answers[row].append(following[row])
                done[row] = following[row] in ends[row] or len(answers[row]) == most[row]
        if asked.all_done(all(done)):
            break
        tokens = torch.tensor(following, device=asked.device).unsqueeze(1)
    return {
        number: Generated(tokens=tuple(answer), finish_reason="stop" if answer and answer[-1] in stops else "length")
        for (number, _), answer, stops in zip(batch, answers, ends, strict=False)
    }
