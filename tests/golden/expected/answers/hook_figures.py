"""What answers are like, whether they are right or not."""

import re

NUMBER = re.compile(r"[0-9]{1,15}")


def answer_metrics(answers):
    """hooks.answer_metrics: the share of answers that have a number, and how far the last one is from that of the
    reference in the median; the mean length in tokens. answers: dicts, as docs/answers.md lists their keys.
    """
    numbers = [last_number(one["answer"]) for one in answers]
    wanted = [last_number(one["reference"]) for one in answers]
    pairs = [(have, want) for have, want in zip(numbers, wanted, strict=True) if have is not None and want is not None]
    figures = {
        "with_number": sum(number is not None for number in numbers) / len(answers),
        "answer_tokens": sum(one["tokens"] for one in answers) / len(answers),
    }
    if pairs:  # a figure that cannot be said of these answers is left out
        figures["off_by"] = sorted(abs(have - want) for have, want in pairs)[len(pairs) // 2]
    return figures


def last_number(text):
    """The last digits of a text as a number, None where there are none."""
    found = NUMBER.findall(text)
    return int(found[-1]) if found else None
