"""The proof over real rows with real tokenizers: how many are proven, how many refused and why, and none wrong."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sftc.runtime.data.align import token_mask
from sftc.runtime.data.formats import Conversation, read_conversation
from sftc.runtime.data.mask import MaskFinder, Rendered
from sftc.runtime.data.rows import RowError
from sftc.runtime.data.settings import Columns
from sftc.runtime.data.template import ChatTemplate, find_template
from sftc.runtime.data.tokens import TextTokenizer


def json_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def gsm8k(data: Path) -> Iterator[Conversation]:
    columns = Columns(prompt="question", completion="answer")
    for name in ("train", "test"):
        for row in json_lines(data / "gsm8k" / f"{name}.jsonl"):
            yield read_conversation(row, "prompt_completion", columns)


def tau_bench(data: Path) -> Iterator[Conversation]:
    for row in json.loads((data / "tau_bench" / "gpt-4o-airline.json").read_text()):
        yield read_conversation(row, "messages", Columns(messages="traj"))


def xtuner(data: Path) -> Iterator[Conversation]:
    folder = data / "xtuner"
    rows = json_lines(folder / "mllm_sft_text_example_data.jsonl")
    rows += json_lines(folder / "openai_sft.jsonl")
    rows += json.loads((folder / "multi_turn_2.json").read_text())
    # The last five show pictures, which the format refuses.
    rows += json_lines(folder / "qwen35_tokenize_data.jsonl")[:12]
    for row in rows:
        yield read_conversation(row, "messages", Columns())


def fastchat(data: Path) -> Iterator[Conversation]:
    for row in json.loads((data / "fastchat" / "dummy_conversation.json").read_text()):
        yield read_conversation(row, "sharegpt", Columns())


def decoded(tokenizer: TextTokenizer, rendered: Rendered, encoding: Any) -> list[str]:
    """The supervised text, span by span, from nothing but tokens and mask."""
    mask = token_mask(encoding, encoding.ids, rendered, tokenizer)
    spans: list[list[int]] = []
    for at, number in enumerate(encoding.ids):
        if mask[at] and (at == 0 or not mask[at - 1]):
            spans.append([])
        if mask[at]:
            spans[-1].append(number)
    return [tokenizer.decode(span) for span in spans]


def expected(message: dict[str, Any], *, is_last: bool, thinks: bool) -> str:
    """What Qwen3's template writes for an assistant's message, said anew; without `thinks`, SmolLM2's."""
    content: str = message.get("content", "")
    if not thinks:
        return content + "<|im_end|>"
    reasoning = message.get("reasoning_content", "")
    calls = [
        f'<tool_call>\n{{"name": "{call["function"]["name"]}", '
        f'"arguments": {json.dumps(call["function"]["arguments"], ensure_ascii=False)}}}\n</tool_call>'
        for call in message.get("tool_calls", ())
    ]
    if is_last or reasoning:
        content = "<think>\n" + reasoning.strip("\n") + "\n</think>\n\n" + content.lstrip("\n")
    return ("\n".join([content, *calls]) if message.get("content") else content + "\n".join(calls)) + "<|im_end|>"


def wanted(conversation: Conversation, *, thinks: bool) -> list[str]:
    roles = [message["role"] for message in conversation.messages]
    question = max(index for index, role in enumerate(roles) if role == "user")
    texts = []
    for index, message in enumerate(conversation.messages):
        if message["role"] == "assistant" and conversation.train[index] is not False:
            current = message if index > question else {**message, "reasoning_content": ""}
            texts.append(expected(current, is_last=index > question and index == len(roles) - 1, thinks=thinks))
    return texts


@pytest.mark.parametrize(
    ("name", "source", "outcome"),
    [
        ("smollm2", gsm8k, {"proven": 8792}),
        ("qwen3", gsm8k, {"proven": 8792}),
        ("smollm2", tau_bench, {"proven": 18, "tool-calls-lost": 182}),
        ("qwen3", tau_bench, {"proven": 200}),
        ("smollm2", xtuner, {"proven": 336, "tool-calls-lost": 6}),
        ("qwen3", xtuner, {"proven": 342}),
        ("smollm2", fastchat, {"proven": 500}),
        ("qwen3", fastchat, {"proven": 500}),
    ],
)
def test_proof(shared: Path, name: str, source: Any, outcome: dict[str, int]) -> None:
    path = shared / "tokenizers" / name
    tokenizer = TextTokenizer.load(path, 200_000)
    template = ChatTemplate(find_template(path, tokenizer.config, None), tokenizer.special_tokens)
    finder = MaskFinder(template, tokenizer)
    counts: Counter[str] = Counter()
    proven: list[tuple[Conversation, Rendered]] = []
    for conversation in source(shared / "data"):
        try:
            proven.append((conversation, finder.render(conversation, "assistant")))
        except RowError as error:
            counts[error.code] += 1
    encodings = tokenizer.encode([rendered.text for _, rendered in proven])
    for (conversation, rendered), encoding in zip(proven, encodings, strict=True):
        is_right = decoded(tokenizer, rendered, encoding) == wanted(conversation, thinks=name == "qwen3")
        counts["proven" if is_right else "wrong"] += 1
    assert counts == outcome
