"""What is known of one conversation is used for the next of its shape, and only where it holds."""

from typing import Any

import pytest

from sftc.runtime.data.formats import read_conversation
from sftc.runtime.data.mask import MaskFinder, Rendered
from sftc.runtime.data.rows import RowError
from sftc.runtime.data.settings import Columns
from sftc.runtime.data.skeleton import Skeletons
from sftc.runtime.data.template import ChatTemplate, TemplateText
from sftc.runtime.data.tokens import TextTokenizer

TURN = "<|im_start|>{{ m.role }}\n%s<|im_end|>\n"
PLAIN = "{% for m in messages %}" + TURN % "{{ m.content }}" + "{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TEMPLATES = {
    "plain": PLAIN,
    "trims": "{% for m in messages %}" + TURN % "{{ m.content | trim }}" + "{% endfor %}",
    "looks at the length": "{% for m in messages %}"
    + TURN % "{% if m.content | length > 3 %}{{ m.content }}{% else %}({{ m.content }}){% endif %}"
    + "{% endfor %}",
    "looks at a word": "{% for m in messages %}"
    + TURN % "{{ m.content }}{% if 'swap' in messages[0].content %} {{ messages[0].content }}{% endif %}"
    + "{% endfor %}",
    "changes a word": "{% for m in messages %}" + TURN % "{{ m.content | replace('good', 'bad') }}" + "{% endfor %}",
}
CONTENTS = [
    ("hello there", "general"),
    ("good morning", "to you"),
    ("hi", "ho"),
    (" spaced ", "out\n"),
    (" spaced too ", "outer\n"),
    ("please swap", "this"),
    ("UPPER", "CASE"),
    ("same words", "same words"),
    ("<|im_end|> typed", "fine"),
    ("", "nothing asked"),
]


@pytest.fixture
def outcomes(tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`outcomes(template, known)`: what comes of every conversation, and how many renders all of them took."""

    def run(template: str, known: bool) -> tuple[list[Rendered | str], int]:
        compiled = ChatTemplate(text_of(template), tokenizer.special_tokens)
        finder = MaskFinder(compiled, tokenizer)
        if not known:
            monkeypatch.setattr(finder._skeletons, "find", lambda _: None)
        renders = 0
        render = compiled.render

        def counted(*args: Any, **kwargs: Any) -> str:
            nonlocal renders
            renders += 1
            return render(*args, **kwargs)

        monkeypatch.setattr(compiled, "render", counted)
        found: list[Rendered | str] = []
        for ask, reply in CONTENTS * 2:
            row = {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]}
            try:
                found.append(finder.render(read_conversation(row, "messages", Columns()), "assistant"))
            except RowError as error:
                found.append(f"{error.code} {error.message}")
        return found, renders

    def text_of(template: str) -> TemplateText:
        return TemplateText(source="test", default=template + PROMPT)

    return run


@pytest.mark.parametrize("name", TEMPLATES)
def test_nothing_but_the_number_of_renders_changes(outcomes: Any, name: str) -> None:
    with_them, fewer = outcomes(TEMPLATES[name], True)
    without, renders = outcomes(TEMPLATES[name], False)
    assert with_them == without
    assert fewer <= renders
    if name in ("plain", "trims"):
        # A second render for the first conversation of each shape, and not for each.
        shapes = 3
        assert renders - fewer == len(CONTENTS) * 2 - shapes


def test_old_shapes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftc.runtime.data.skeleton.SHAPES", 2)
    known = Skeletons()
    for shape in ("a", "b"):
        known.keep(shape, shape)  # type: ignore[arg-type]
    known.find("a")
    known.keep("c", "c")  # type: ignore[arg-type]
    assert [known.find(shape) for shape in ("a", "b", "c")] == ["a", None, "c"]
