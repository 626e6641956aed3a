"""Rows, tokenizer and evaluation: what a recipe wants differs most from what other tools name here."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from .ledger import Handler, Ledger, Setting

TRAIN, VALID = "data.train_data_path", "data.valid_data_path"
ROWS = f"write `{TRAIN}`: rows as JSON Lines or parquet, or the prefix of indexed files"
FORMATS = {"alpaca": "alpaca", "openai": "messages", "messages": "messages", "sharegpt": "sharegpt"}


def rows_at(key: str) -> Handler:
    """One path, or Megatron's list of weights and paths."""

    def handler(ledger: Ledger, setting: Setting) -> None:
        words = setting.value.split() if isinstance(setting.value, str) else setting.value
        if ledger.tool == "Megatron":  # prefixes of indexed files, or rows in Megatron's own form
            ledger.leave(setting, ROWS if key == TRAIN else f"write `{VALID}`, as `{TRAIN}`")
        elif key == VALID and ledger["eval_iters"] == 0:
            ledger.skip(setting, "eval_iters is 0: nothing is evaluated")
        elif not isinstance(words, list):
            ledger.leave(setting, f"no path; write `{key}`")
        elif len(words) == 1:
            ledger.put(setting, key, value=None if isinstance(setting.value, str) else words[0])
        elif key == TRAIN and (sources := _weighted(words)):
            ledger.put(setting, "data.sources", value=sources, note="weights and paths in turn")
        else:
            ledger.leave(setting, f"several paths; write `{key}`")

    return handler


def _weighted(words: Sequence[object]) -> list[dict[str, object]] | None:
    """`[0.3, a, 0.7, b]` as sources; without weights each path is one."""
    try:
        weights = [float(str(word)) for word in words[::2]]
    except ValueError:
        return [{"path": str(word)} for word in words]
    if len(words) % 2 or any(weight <= 0 for weight in weights):
        return None
    return [{"path": str(path), "weight": weight} for path, weight in zip(words[1::2], weights, strict=True)]


def dataset_name(ledger: Ledger, setting: Setting) -> None:
    """A dataset on the hub, or rows on disk."""
    name = str(setting.value)
    if is_local(name) or PurePosixPath(name).suffix in (".jsonl", ".json", ".parquet"):
        ledger.put(setting, TRAIN)
    else:
        split = ledger["sft_dataset_split"] or "train"
        address = f"hf://datasets/{name}@COMMIT?split={split}"
        ledger.leave(setting, f"write `{TRAIN}: {address}`, or the path of its rows; a commit pins what is read")


def dataset_split(ledger: Ledger, setting: Setting) -> None:
    ledger.leave(setting, f"a part of the address in `{TRAIN}`: `?split={setting.value}`")


def conversation_format(ledger: Ledger, setting: Setting) -> None:
    if setting.value in FORMATS:
        ledger.put(setting, "data.format", value=FORMATS[setting.value])
    else:
        ledger.leave(setting, "write `data.format`, such as prompt_completion with the names of its columns")


def tokenizer(ledger: Ledger, setting: Setting) -> None:
    name = str(setting.value)
    if "tokenizer.path" in ledger.values:
        ledger.skip(setting, "`tokenizer.path` is set")
    elif is_local(name) and PurePosixPath(name).suffix not in (".model", ".json", ".txt"):
        ledger.put(setting, "tokenizer.path")
    else:
        tokenizer_file(ledger, setting)


def tokenizer_type(ledger: Ledger, setting: Setting) -> None:
    ledger.leave(setting, "rows are tokenized before the ranks start, by the tokenizer in `tokenizer.path`")


def evaluation(ledger: Ledger, setting: Setting) -> None:
    if not setting.value or ledger["eval_iters"] == 0:
        ledger.skip(setting, "nothing is evaluated")
    elif not {VALID, "data.valid_fraction"} & set(ledger.given) and not _names_validation(ledger):
        ledger.leave(setting, f"no validation rows are named; write `{VALID}` and `eval.{setting.dest}`")
    else:
        ledger.put(setting, f"eval.{setting.dest}")


def _names_validation(ledger: Ledger) -> bool:
    return bool(ledger["valid_data_path"]) and ledger.tool != "Megatron"


def packed_attention(ledger: Ledger, setting: Setting) -> None:
    if setting.value or not ledger["enable_packed_sequences"]:
        ledger.skip(setting, "packed rows never see each other")
    else:
        ledger.leave(setting, "rows in a pack see each other in the source, and never do here")


def mock_data(ledger: Ledger, setting: Setting) -> None:
    if setting.value:
        ledger.leave(setting, ROWS)
    else:
        ledger.skip(setting, "off")


def is_local(name: str) -> bool:
    """Whether a name that may be one on the hub is a path."""
    return name.startswith(("/", "./", "../", "~")) or name.count("/") > 1


def tokenizer_file(ledger: Ledger, setting: Setting) -> None:
    ledger.leave(setting, "write `tokenizer.path`: a directory with its tokenizer.json and tokenizer_config.json")


HANDLERS: dict[str, Handler] = {
    "train_data_path": rows_at(TRAIN),
    "valid_data_path": rows_at(VALID),
    "data_path": lambda ledger, setting: ledger.leave(setting, ROWS),
    "mock_data": mock_data,
    "sft_dataset_name": dataset_name,
    "sft_dataset_split": dataset_split,
    "sft_conversation_format": conversation_format,
    "enable_packed_sequences": lambda ledger, setting: ledger.put(setting, "data.packing"),
    "packed_sequence": lambda ledger, setting: ledger.put(setting, "data.packing"),
    "use_packed_attention": packed_attention,
    "tokenizer_type": tokenizer_type,
    "tokenizer_model": tokenizer,
    "hf_path": tokenizer,
    "vocab_file": tokenizer_file,
    "merge_file": tokenizer_file,
    "eval_interval": evaluation,
    "eval_iters": evaluation,
}
