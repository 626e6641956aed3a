"""A job that fails: one message, from the rank that knows, all ranks ended, and the last checkpoint whole."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from sftc.compiler.cli import cli

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))

from ranks import environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs the extra [runtime]: torch and megatron-core"),
]
LIMIT = 240
type Failed = tuple[Path, subprocess.CompletedProcess[str]]
HOOK = """\
import os

calls = []


def loss(losses, loss_mask, batch):
    calls.append(1)
    if os.environ["RANK"] == "1" and len(calls) > 4:
        raise ValueError("planted")
    return (losses * loss_mask).sum(), loss_mask.sum().int()
"""


@pytest.fixture(scope="module")
def failed(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Failed:
    """Two data-parallel ranks, of which the second fails in iteration 5; checkpoints at 2 and 4."""
    cwd = tmp_path_factory.mktemp("failed")
    (cwd / "recipes").symlink_to(repo_root / "recipes")
    text = (repo_root / "recipes/quickstart/recipe.yaml").read_text()
    for key, value in {"nproc_per_node": 2, "micro_batch_size": 16, "save_interval": 2, "train_iters": 8}.items():
        text, count = re.subn(rf"^  {key}: \d+", f"  {key}: {value}", text, flags=re.MULTILINE)
        assert count == 1
    text = text.replace("lr_warmup_iters: 20", "lr_warmup_iters: 2").replace("eval_interval: 25", "eval_interval: 8")
    (cwd / "recipe.yaml").write_text(text + "\nhooks:\n  loss: ./fails.py:loss\n")
    (cwd / "fails.py").write_text(HOOK)
    done = CliRunner().invoke(cli, ["compile", str(cwd / "recipe.yaml"), "-o", str(cwd / "build")])
    assert done.exit_code == 0, done.output
    path = f"{Path(sys.executable).parent}:{environment()['PATH']}"
    command = ["bash", cwd / "build/launch.sh"]
    return cwd, subprocess.run(
        command, cwd=cwd, env=environment(PATH=path), capture_output=True, text=True, timeout=LIMIT
    )


def test_the_rank_that_knows_says_it_once(failed: Failed) -> None:
    _, ended = failed
    assert ended.returncode != 0
    told = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert told == ["error: `hooks.loss` (hook_fails.py:loss) raised ValueError: planted (hook_fails.py:9)"]


def test_the_traceback_is_in_its_log(failed: Failed) -> None:
    logs = list((failed[0] / "runs/quickstart/logs").glob("*/attempt_0/1/stdout.log"))
    assert len(logs) == 1
    assert 'raise ValueError("planted")' in logs[0].read_text()


def test_the_last_checkpoint_is_whole(failed: Failed) -> None:
    save = failed[0] / "runs/quickstart/checkpoints"
    assert (save / "latest_checkpointed_iteration.txt").read_text() == "4"
    assert json.loads((save / "iter_0000004/metadata.json").read_text())["sharded_backend"] == "torch_dist"
