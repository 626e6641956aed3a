"""`make kills` with two kills instead of twenty."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

import kills


@pytest.mark.slow
@pytest.mark.skipif(find_spec("megatron") is None, reason="needs the extra [runtime]: torch and megatron-core")
def test_a_killed_run_goes_on_from_the_last_checkpoint_and_learns_the_same(tmp_path: Path) -> None:
    found, wrong = kills.measure(tmp_path, ["preparing", "training"], seed=0)
    assert [kill.wrong for kill in found] == [[], []]
    assert found[1].reached > 0
    assert wrong == []
