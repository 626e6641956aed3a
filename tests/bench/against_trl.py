"""TRL's own preprocessing: the tokenize and pack maps of its SFTTrainer, and nothing else of it; its tokenizer."""

import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sftc.runtime.data.template import find_template
from sftc.runtime.data.tokens import TextTokenizer


def fast_tokenizer(path: Path) -> Any:
    """The tokenizer in directory `path`, with its chat template, as TRL takes it."""
    from transformers import PreTrainedTokenizerFast

    ours = TextTokenizer.load(path, 1 << 20)
    fast = PreTrainedTokenizerFast(tokenizer_object=ours.backend, **dict(ours.special_tokens))
    fast.chat_template = find_template(path, ours.config, None).default
    return fast


def trl_seconds(place: Path, tokenizer: Path, *, seq_length: int, processes: int | None) -> tuple[float, str] | str:
    """Seconds for the rows of `place/rows.jsonl`, and TRL's version; or why it cannot be measured. processes: TRL's
    `dataset_num_proc`, which it leaves at None, for one.

    Prompt and completion with a loss on the completion is how TRL masks a template without generation blocks.
    """
    try:
        import datasets
        import torch
        import trl
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        return f"needs the extra `bench`: {error}"
    datasets.disable_caching()
    fast = fast_tokenizer(tokenizer)
    config = trl.SFTConfig(
        output_dir=str(place / "trl"),
        packing=True,
        max_length=seq_length,
        dataset_num_proc=processes,
        completion_only_loss=True,
        padding_free=False,
        use_cpu=True,
        bf16=False,
        report_to=[],
    )

    def rows(count: int | None = None) -> Any:
        lines = (place / "rows.jsonl").read_text().splitlines()[:count]
        messages = [json.loads(line)["messages"] for line in lines]
        return datasets.Dataset.from_list([{"prompt": [ask], "completion": [reply]} for ask, reply in messages])

    tiny = LlamaConfig(
        vocab_size=len(fast), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    torch.set_num_threads(1)
    trainer = trl.SFTTrainer(model=LlamaForCausalLM(tiny), args=config, train_dataset=rows(8), processing_class=fast)
    whole = rows()
    began = time.perf_counter()
    trainer._prepare_dataset(whole, fast, config, True, None, "train")
    return time.perf_counter() - began, version("trl")
