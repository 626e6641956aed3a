"""Templates and tokenizer files of other makers' habits, in small."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from sftc.runtime.data.align import token_mask
from sftc.runtime.data.formats import read_conversation
from sftc.runtime.data.mask import MaskFinder
from sftc.runtime.data.rows import RowError
from sftc.runtime.data.settings import Columns
from sftc.runtime.data.template import ChatTemplate, find_template
from sftc.runtime.data.tokens import TextTokenizer
from sftc.runtime.errors import UserError

from .conftest import CHATML, write_tokenizer

type Supervised = Callable[..., list[str]]

SYSTEM = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": "What is 1+1?"}
REPLY = {"role": "assistant", "content": "It is 2."}
AGAIN = {"role": "user", "content": "And 2+2?"}
SECOND = {"role": "assistant", "content": "That is 4."}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"name": "add", "arguments": {"n": "one"}}]}
RESULT = {"role": "tool", "content": "2"}

# The system message goes into the last question, so no past prompt is a prefix; there is no generation prompt.
SYSTEM_LAST = (
    "{{ bos_token }}{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% for m in messages if m.role != 'system' %}"
    "{% if m.role == 'user' %}[INST] {{ system + '\n' if loop.index0 + 2 >= loop.length }}{{ m.content }} [/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
# The prompt opens a thought, unless the model is told not to think.
THINKS_UNLESS_TOLD = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>{% else %}<think></think>{% endif %}"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think></think>{% else %}<think>\n{% endif %}{% endif %}"
)
# As those that repeat the function's name with its result.
ECHOES = (
    "{% set ns = namespace(name='') %}{% for m in messages %}"
    "{% if m.role == 'tool' %}<|user|>{{ ns.name }} says {{ m.content }}<|end|>"
    "{% elif m.tool_calls %}{% set ns.name = m.tool_calls[0].function.name %}"
    "<|assistant|>{{ ns.name }}{{ m.tool_calls[0].function.arguments | tojson }}<|call|>"
    "{% else %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Calls are written where the content is null, and only there.
NULL_CONTENT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is none %}"
    "{{ m.tool_calls[0].function.name }} {{ m.tool_calls[0].function.arguments | tojson }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_system_message_in_the_last_question(supervised: Supervised) -> None:
    spans = [" It is 2.</s>", " That is 4.</s>"]
    assert supervised(SYSTEM_LAST, [SYSTEM, ASK, REPLY, AGAIN, SECOND]) == spans
    assert supervised(SYSTEM_LAST, [ASK, REPLY, AGAIN, SECOND]) == spans


def test_what_else_stands_before_the_words_is_refused(supervised: Supervised) -> None:
    template = SYSTEM_LAST.replace("{% else %} {{", "{% else %}{{ '' if loop.last else '>' }} {{").replace(
        " [/INST]", "{{ ' [/INST]' if loop.index0 + 2 >= loop.length else ' [/inst]' }}"
    )
    with pytest.raises(RowError) as refusal:
        supervised(template, [SYSTEM, ASK, REPLY, AGAIN, SECOND])
    assert refusal.value.code == "no-generation-prompt"


def test_the_prompt_of_a_model_that_does_not_think(supervised: Supervised) -> None:
    thought = SECOND | {"reasoning_content": "Two and two."}
    spans = supervised(THINKS_UNLESS_TOLD, [ASK, REPLY, AGAIN, thought])
    assert spans == ["It is 2.<|im_end|>", "Two and two.\n</think>That is 4.<|im_end|>"]


def test_generation_block_that_begins_with_the_end_of_the_prompt(supervised: Supervised) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}<think>\n"
        "{{ m.reasoning_content }}\n</think>{{ m.content }}<|im_end|>{% endgeneration %}"
        "{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    thought = REPLY | {"reasoning_content": "One and one."}
    assert supervised(template, [ASK, thought]) == ["One and one.\n</think>It is 2.<|im_end|>"]


def test_names_of_functions_that_are_repeated_with_results(supervised: Supervised) -> None:
    spans = supervised(ECHOES, [ASK, CALL, RESULT, REPLY])
    assert spans == ['add{"n": "one"}<|call|>', "It is 2.<|end|>"]
    twice = ECHOES.replace("<|assistant|>{{ ns.name }}{{", "<|assistant|>{{ ns.name }}{{ ns.name }}{{")
    with pytest.raises(RowError) as refusal:
        supervised(twice, [ASK, CALL, RESULT, REPLY])
    assert refusal.value.code == "words-changed"


def test_calls_without_content(supervised: Supervised) -> None:
    spans = supervised(NULL_CONTENT, [ASK, CALL, RESULT, REPLY])
    assert spans == ['add {"n": "one"}<|im_end|>', "It is 2.<|im_end|>"]


def test_template_that_writes_no_plain_text(supervised: Supervised) -> None:
    parts = CHATML.replace("{{ m.content }}", "{% for part in m.content %}{{ part.text }}{% endfor %}")
    with pytest.raises(UserError, match="does not write an answer that is plain text"):
        supervised(parts, [ASK, REPLY])


def blanks(path: Path, first: bool) -> TextTokenizer:
    """As SentencePiece: blanks are a character of their own, one is put before each text, other bytes fall back."""
    special = ["<unk>", "<s>", "</s>"]
    vocab = {token: number for number, token in enumerate([*special, *(f"<0x{byte:02X}>" for byte in range(256))])}
    vocab |= {char: len(vocab) + number for number, char in enumerate("▁abcdefghijklmnopqrstuvwxyzINST[]/.+0123456789")}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps = [normalizers.Prepend("▁")] if first else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    backend.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return TextTokenizer.load(path, 1000)


@pytest.mark.parametrize("first", [True, False], ids=["a blank before each text", "blanks replaced"])
@pytest.mark.parametrize("words", ["it is two.", "🙂 it", "it 🙂", "🙂", "  it ", "é</s>é"])
def test_blanks_and_bytes_as_sentencepiece_has_them(tmp_path: Path, first: bool, words: str) -> None:
    tokenizer = blanks(tmp_path, first)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": SYSTEM_LAST}))
    template = ChatTemplate(find_template(tmp_path, tokenizer.config, None), tokenizer.special_tokens)
    row = {"messages": [ASK, {"role": "assistant", "content": words}, AGAIN, SECOND]}
    rendered = MaskFinder(template, tokenizer).render(read_conversation(row, "messages", Columns()), "assistant")
    encoding = rendered.tokens or tokenizer.encode([rendered.text])[0]
    mask = token_mask(encoding, encoding.ids, rendered, tokenizer)
    trained = [number for number, on in zip(encoding.ids, mask, strict=True) if on]
    assert tokenizer.decode(trained) == f" {words}</s> That is 4.</s>"
    assert trained.count(tokenizer.eos_id) == 2


def template_files(path: Path) -> list[tuple[dict[str, Any], dict[str, str], tuple[str, str]]]:
    named = {"default": "a", "tool_use": "b"}
    listed = [{"name": name, "template": text} for name, text in named.items()]
    return [
        ({"chat_template": listed}, {}, ("a", "b")),
        ({"chat_template": named}, {}, ("a", "b")),
        ({}, {"chat_template.json": json.dumps({"chat_template": listed})}, ("a", "b")),
        ({"chat_template": "x"}, {"chat_template.json": json.dumps({"chat_template": "a"})}, ("a", "a")),
        (
            {"chat_template": "x"},
            {"chat_template.jinja": "a", "additional_chat_templates/tool_use.jinja": "b", "chat_template.json": "{}"},
            ("a", "b"),
        ),
    ]


@pytest.mark.parametrize("case", range(5))
def test_where_templates_lie(tmp_path: Path, case: int) -> None:
    config, files, wanted = template_files(tmp_path)[case]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    chosen = ChatTemplate(find_template(tmp_path, config, None), {})
    assert (chosen.render([ASK]), chosen.render([ASK], [{"type": "function"}])) == wanted


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"chat_template": [{"name": "rag", "template": "a"}]}, "none is `default`"),
        ({"chat_template": [{"name": "default"}]}, "no list of named templates"),
        ({"chat_template": 3}, "has no chat template"),
    ],
)
def test_templates_that_cannot_be_chosen(tmp_path: Path, config: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        find_template(tmp_path, config, None)


def test_special_tokens_that_only_the_configuration_declares(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path)
    size = TextTokenizer.load(path, 1000).size
    config = json.loads((path / "tokenizer_config.json").read_text())
    declared = {str(size): {"content": "<|eot|>", "special": True}, "5000": {"content": "<|far|>", "special": True}}
    config |= {"added_tokens_decoder": declared, "extra_special_tokens": {"image_token": "<|image|>"}}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = TextTokenizer.load(path, 1000)
    (encoding,) = tokenizer.encode(["a<|eot|>"])
    assert encoding.ids[-1] == size
    assert "<|eot|>" in tokenizer.special_texts
    assert "<|far|>" not in tokenizer.special_texts
    assert tokenizer.special_tokens["image_token"] == "<|image|>"


def test_end_token_in_other_files(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path)
    (path / "tokenizer_config.json").write_text("{}")
    assert TextTokenizer.load(path, 1000).eos_id is None
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [4, 2]}))
    with_generation = TextTokenizer.load(path, 1000)
    assert with_generation.special_tokens == {"eos_token": "</s>"}
    (path / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "<|end|>"}}))
    with_map = TextTokenizer.load(path, 1000)
    assert with_map.special_tokens == {"eos_token": "<|end|>"}
    assert with_map.pad_id == with_map.eos_id
    # Both decide what is stored, so both are in the digests.
    assert {"special_tokens_map.json", "generation_config.json"} <= with_map.digests.keys()
    (path / "special_tokens_map.json").write_text("{")
    with pytest.raises(UserError, match=r"special_tokens_map\.json` is no JSON"):
        TextTokenizer.load(path, 1000)
