"""One undisturbed run, which the tests of resuming and of parallel layouts compare themselves with."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the helpers beside the tests

from build_dir import write_build, write_pointer
from ranks import Run, train


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Eight iterations on one rank with dropout, the distributed optimizer, checkpoints at 3, 6 and 8."""
    if find_spec("megatron") is None:
        pytest.skip("needs megatron-core[training]")
    folder = tmp_path_factory.mktemp("undisturbed")
    build = write_build(folder / "build")
    write_pointer(build, folder / "run")
    ended = train(folder, build)
    assert ended.status == 0, ended.stderr
    return Run(folder=folder, build=build, ended=ended)
