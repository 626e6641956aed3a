"""Packing changes nothing: the loss of every document in its pack is its loss alone, and so are the gradients."""

import json
import random
import subprocess
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ranks import LIMIT, PYTHON, environment, free_port

pytest.importorskip("tokenizers")

from sftc.runtime.data.prepare import Prepared, prepare
from sftc.runtime.data.settings import DataSettings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs megatron-core[training]"),
]
MODEL = Path(__file__).with_name("packed_model.py")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int | None], Prepared]:
    """`prepared(multiple)`: 24 conversations of many lengths, packed for context parallelism or not at all."""
    folder = tmp_path_factory.mktemp("packed")
    letters = random.Random(3)
    rows = []
    for _ in range(24):
        ask, reply = ("".join(letters.choices("abcdefgh ", k=letters.randint(1, most))) for most in (9, 40))
        rows.append({"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]})
    for name in ("train", "valid"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = DataSettings(
        train_data_path=folder / "train.jsonl",
        valid_data_path=folder / "valid.jsonl",
        tokenizer_path=ROOT / "recipes/quickstart/tokenizer",
        store_path=folder / "store",
        on_shared_rows="keep",
        seq_length=96,
        vocab_size=512,
    )
    return lambda multiple: prepare(replace(settings, packing_multiple=multiple))


def losses(prepared: Callable[[int | None], Prepared], result: Path, positions: str, ranks: int) -> dict[str, Any]:
    """What packed_model.py finds out on `ranks` context-parallel ranks."""
    stores = [str(prepared(multiple).store) for multiple in (None, 2 * ranks if ranks > 1 else 1)]
    variables = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [PYTHON, str(MODEL), *stores, positions, str(result)]
    started = [
        subprocess.Popen(command, env=environment(RANK=str(rank), **variables), stderr=subprocess.PIPE, text=True)
        for rank in range(ranks)
    ]
    try:
        errors = [process.communicate(timeout=LIMIT)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * ranks, errors
    found: dict[str, Any] = json.loads(result.read_text())
    return found


@pytest.mark.parametrize(("positions", "ranks"), [("rope", 1), ("learned_absolute", 1), ("rope", 2)])
def test_documents_do_not_see_each_other(
    prepared: Callable[[int | None], Prepared], tmp_path: Path, positions: str, ranks: int
) -> None:
    packing = prepared(2 * ranks if ranks > 1 else 1).summary["splits"]["valid"]["packing"]
    assert packing["documents_in_fullest"] > 2
    found = losses(prepared, tmp_path / "result.json", positions, ranks)
    assert len(found["alone"]) == 24
    assert found["packed"] == pytest.approx(found["alone"], rel=1e-5, abs=1e-5)
    assert found["difference"] <= 1e-5 * found["gradient"]
    assert found["gradient"] > 1
    # The proof can fail: without the borders, most documents learn something from those before them.
    seen = [abs(a - b) > 1e-4 * b for a, b in zip(found["forgetful"], found["alone"], strict=True)]
    assert sum(seen) >= 24 - packing["packs"]
