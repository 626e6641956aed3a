"""`<run_path>/data.json`, which preparation leaves: where the data of this run lies and for which build it was made."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .bundle import Bundle
from .errors import UserError

FILE = "data.json"


def read_pointer(bundle: Bundle) -> Mapping[str, Any]:
    """UserError when the data was not prepared, or was prepared for another build. `store` is None for a run whose
    samples are those of a hook.
    """
    if bundle.value("data.train_data_path") is None and bundle.value("data.sources") is None:
        return {"store": None}
    path = Path(bundle.value("logging.run_path")) / FILE
    remedy = f"`python -m sftc.runtime prepare {bundle.path}`, which launch.sh does first"
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"the data is not prepared: there is no `{path}`", help=remedy) from None
    if content.get("manifest") != bundle.digest:
        raise UserError(f"`{path}` was prepared for another build than `{bundle.path}`", help=remedy)
    return content
