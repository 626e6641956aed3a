"""The digest of the chat template that rows are rendered by."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..data.template import TemplateText, find_template
from ..errors import UserError


def template_digest(value: Callable[[str], Any], own: str | None) -> str | None:
    """`own` is the text of the recipe's own template. None where there is none, or none that can be read: rows that
    need one are refused when they are prepared.
    """
    if value("task.kind") == "pretrain":
        return None
    if own is not None:
        return TemplateText(source="", default=own).sha256
    folder = Path(value("tokenizer.path"))
    try:
        config = json.loads((folder / "tokenizer_config.json").read_bytes())
        return find_template(folder, config if isinstance(config, dict) else {}, None).sha256
    except (OSError, ValueError, UserError):
        return None
