"""What `sftc export` asks for. Loaded by name, by the command line."""

from pathlib import Path

from ..errors import UserError
from ..progress import complain
from .export import DTYPES, Export, export, foreign

__all__ = ["DTYPES", "foreign", "write"]


def write(
    run_path: Path, target: Path, *, iteration: int | None, dtype: str | None, max_shard: int, adapter: bool
) -> str | None:
    """The line that says what was written; None for a problem, which has been told on stderr."""
    asked = Export(run_path=run_path, iteration=iteration, dtype=dtype, max_shard=max_shard, adapter=adapter)
    try:
        return export(asked, target)
    except UserError as error:
        complain(error)
        return None
