"""The same text as Hugging Face, and templates that misbehave."""

import json
from pathlib import Path
from typing import Any

import pytest

from sftc.runtime.data.facts import TemplateFacts
from sftc.runtime.data.formats import read_conversation
from sftc.runtime.data.rows import RowError
from sftc.runtime.data.settings import Columns
from sftc.runtime.data.template import ChatTemplate, TemplateText, find_template
from sftc.runtime.data.tokens import TextTokenizer
from sftc.runtime.errors import UserError

from .conftest import CHATML

ASK = {"role": "user", "content": "<b>Why?</b> é 'so'"}
REPLY = {"role": "assistant", "content": "Because."}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"a": "<é>", "b": [1, None]}}]}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "<é> 'f'", "parameters": {"type": "object"}}}]


def template(text: str, **special_tokens: str) -> ChatTemplate:
    return ChatTemplate(TemplateText(source="test", default=text), special_tokens)


@pytest.mark.parametrize("name", ["smollm2", "qwen3"])
def test_renders_as_transformers_does(shared: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    path = shared / "tokenizers" / name
    theirs = transformers.AutoTokenizer.from_pretrained(str(path))
    tokenizer = TextTokenizer.load(path, 200_000)
    ours = ChatTemplate(find_template(path, tokenizer.config, None), tokenizer.special_tokens)
    rows: list[dict[str, Any]] = [
        {"messages": [ASK, REPLY]},
        {"messages": [{"role": "system", "content": "Be brief."}, ASK, REPLY, ASK, REPLY], "tools": TOOLS},
        {
            "messages": [
                ASK,
                {**REPLY, "reasoning_content": "Hm.\n"},
                ASK,
                {**REPLY, "content": "<think>\nHm\n</think>\nSo."},
            ]
        },
        {
            "messages": [ASK, CALL, {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}, REPLY],
            "tools": TOOLS,
        },
    ]
    real = (shared / "data" / "xtuner" / "qwen35_tokenize_data.jsonl").read_text().splitlines()
    rows += [json.loads(line) for line in real[:12]]
    compared = 0
    for row in rows:
        read = read_conversation(row, "messages", Columns())
        for prompt in (False, True):
            try:
                text = ours.render(read.messages, read.tools, add_generation_prompt=prompt)
            except RowError:
                continue
            expected = theirs.apply_chat_template(
                read.messages, tools=read.tools, add_generation_prompt=prompt, tokenize=False
            )
            assert text == expected
            (encoding,) = tokenizer.encode([text])
            assert encoding.ids == theirs(text, add_special_tokens=False)["input_ids"]
            compared += 1
    assert compared >= 2 * 12


def test_conventions() -> None:
    """White space, loop controls, JSON, special tokens, generation blocks."""
    text = template(
        "{{ bos_token }}{% for m in messages %}\n"
        "    {% if loop.index > 1 %}\n"
        "        {% break %}\n"
        "    {% endif %}\n"
        "{{ {'é': '<b>'} | tojson }}{% generation %}{{ m.content }}{% endgeneration %}\n"
        "{% endfor %}{{ m is defined }}{{ strftime_now('%d %b %Y') }}",
        bos_token="<s>",
    ).render([ASK, REPLY])
    assert text == "<s>" + '{"é": "<b>"}' + str(ASK["content"]) + "False26 Jul 2024"


def test_the_sandbox_holds() -> None:
    for attack in ("{{ messages.__class__ }}", "{{ messages[0].pop('role') }}", "{{ ''.__class__.__mro__ }}"):
        try:
            text = template(attack).render([dict(ASK)])
        except RowError:
            continue
        assert not text, attack
    assert template("{{ messages[0].items() | list | length }}").render([ASK]) == "2"


def test_where_a_template_is_found(tmp_path: Path) -> None:
    assert find_template(tmp_path, {"chat_template": "a"}, None).default == "a"
    named = find_template(
        tmp_path, {"chat_template": [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]}, None
    )
    chosen = ChatTemplate(named, {})
    assert (chosen.render([ASK]), chosen.render([ASK], TOOLS)) == ("a", "b")
    (tmp_path / "chat_template.jinja").write_text("c")
    assert find_template(tmp_path, {"chat_template": "a"}, None).default == "c"
    override = tmp_path / "build" / "chat_template.jinja"
    override.parent.mkdir()
    override.write_text("d")
    assert find_template(tmp_path, {"chat_template": "a"}, override).default == "d"
    with pytest.raises(UserError, match="has no chat template"):
        find_template(tmp_path / "build" / "none", {}, None)
    with pytest.raises(UserError, match="cannot be read"):
        find_template(tmp_path, {"chat_template": "a"}, tmp_path / "gone.jinja")


def test_malformed_template() -> None:
    with pytest.raises(UserError, match="`test` is malformed: line 2"):
        template("\n{% for m in messages %}")


def test_a_template_that_cannot_render_a_plain_exchange(tokenizer: TextTokenizer) -> None:
    with pytest.raises(UserError, match="no users here"):
        TemplateFacts(template("{{ raise_exception('no users here') }}"), tokenizer.special)


@pytest.mark.parametrize(
    ("written", "dialect"),
    [
        ("{{ m.content }}{{ c.arguments | tojson }}", ("empty", "object")),
        ("{{ (m.content or '') + c.arguments | tojson }}", ("absent", "object")),
        ("{{ m.content + c.arguments }}", ("empty", "text")),
        ("{{ c.arguments }}", ("absent", "text")),
        ("", None),
    ],
    ids=["tojson", "content optional", "text wanted", "objects become Python", "arguments ignored"],
)
def test_how_a_template_wants_tool_calls(
    tokenizer: TextTokenizer, written: str, dialect: tuple[str, str] | None
) -> None:
    calls = "{% for t in m.tool_calls %}{% set c = t.function %}{{ c.name }} " + written + "{% endfor %}"
    guard = (
        "{% if m.content is not defined and " + str("m.content }" in written) + " %}{{ m.content + 'x' }}{% endif %}"
    )
    text = CHATML.replace(
        "{{ m.content }}", "{% if m.tool_calls %}" + guard + calls + "{% else %}{{ m.content }}{% endif %}"
    )
    found = TemplateFacts(template(text), tokenizer.special).tool_dialect
    assert (found and (found.content, found.arguments)) == dialect
