"""What is asked in a prompt, in the user's own words."""

from ..data.facts import ANSWER, ASK, QUESTION, REPLY, TemplateFacts
from ..data.rows import RowError

SHOWN = 300  # characters of a prompt that cannot be told apart


class Wording:
    """Finds the last message of a prompt between what a chat template writes before and after a user's message."""

    def __init__(self, facts: TemplateFacts | None) -> None:
        self._before = self._behind = ""
        if facts is not None:
            try:
                self._before, self._behind = _frame(facts)
            except RowError:  # a template that wants other conversations than the probe
                return

    def question(self, prompt: str) -> str:
        """The last message of `prompt`, or the end of the prompt where the message cannot be told."""
        body = prompt.rstrip().removesuffix(self._behind.rstrip())
        at = body.rfind(self._before) if self._before else -1
        if at < 0:
            return prompt.strip()[-SHOWN:]
        return body[at + len(self._before) :].strip()


def _frame(facts: TemplateFacts) -> tuple[str, str]:
    """What stands before each user's message, and what behind the last one of a prompt."""
    longer = facts.template.render([ASK, REPLY, ASK])
    first = longer[: longer.find(QUESTION)]
    second = longer[longer.find(ANSWER) + len(ANSWER) : longer.rfind(QUESTION)]
    pairs = enumerate(zip(reversed(first), reversed(second), strict=False))
    same = next((at for at, (left, right) in pairs if left != right), min(len(first), len(second)))
    common = first[len(first) - same :]
    for end in facts.end_tokens:  # of the answer before, which the first message has not
        common = common.rpartition(end)[2]
    prompted = facts.template.render([ASK], add_generation_prompt=True)
    return common.lstrip(), prompted[prompted.rfind(QUESTION) + len(QUESTION) :]
