"""Host memory of a load is bounded by the largest tensor, whatever the size of the model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")
SCRIPT = Path(__file__).parents[2] / "bench/hf_memory.py"


def measured(layers: int) -> dict[str, int]:
    command = [sys.executable, str(SCRIPT), str(layers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_load_holds_one_tensor_at_a_time() -> None:
    small, large = measured(2), measured(16)
    assert large["files"] > 2 * small["files"] > 4 * small["largest_tensor"]
    for one in (small, large):
        assert one["host_memory_taken"] < one["largest_tensor"]
