"""The cluster, started once and ended after the last of these tests, also when one fails."""

import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the helpers beside the tests

from cluster import Cluster, missing, running
from slurm_jobs import FAKE


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes, 127.0.0.11 and 127.0.0.12, and the spare 127.0.0.13."""
    if reason := missing():
        pytest.skip(f"no Slurm can be started here: {reason}")
    # Not under pytest's own folder: munged wants every directory above to be root's, sockets want short paths.
    folder = Path(tempfile.mkdtemp(prefix="sftc-slurm-", dir="/tmp"))
    try:
        with running(folder) as started:
            yield started
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a python3 and a torchrun that train nothing."""
    folder = tmp_path_factory.mktemp("stand-in")
    for name in ("python3", "torchrun"):
        (folder / name).write_text(FAKE)
        (folder / name).chmod(stat.S_IRWXU)
    return str(folder)
