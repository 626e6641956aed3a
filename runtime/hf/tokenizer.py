"""The tokenizer's files beside an exported model, with the chat template that the run was trained through."""

import json
import shutil
from pathlib import Path
from typing import Any

from ..errors import UserError
from .files import read_json

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
TEMPLATE = "chat_template.jinja"


def copy_tokenizer(source: Path, target: Path, template: str | None) -> None:
    """template: the text that replaces the tokenizer's own. UserError if `source` has no tokenizer."""
    if not (source / "tokenizer.json").is_file():
        raise UserError(
            f"there is no `{source / 'tokenizer.json'}`", help="`tokenizer.path` has to lie where the run found it"
        )
    for name in FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if template is None:
        return
    (target / TEMPLATE).write_text(template, encoding="utf-8")
    path = target / "tokenizer_config.json"
    if path.is_file():
        config = read_json(path)
        config.pop("chat_template", None)
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def special_ids(folder: Path) -> dict[str, int]:
    """`bos_token_id`, `eos_token_id` and `pad_token_id`, as far as the tokenizer names them."""
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    vocabulary = read_json(folder / "tokenizer.json")
    ids: dict[str, int] = {}
    model: Any = vocabulary.get("model") or {}
    if isinstance(model.get("vocab"), dict):
        ids |= model["vocab"]
    ids |= {token["content"]: token["id"] for token in vocabulary.get("added_tokens") or []}
    found = {}
    for name in ("bos", "eos", "pad"):
        token = config.get(f"{name}_token")
        text = token.get("content") if isinstance(token, dict) else token
        if text in ids:
            found[f"{name}_token_id"] = ids[text]
    return found
