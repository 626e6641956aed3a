"""What a lock holds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..digests import known_sha256
from ..errors import UserError
from ..progress import Counter
from .inputs import inputs_of, relative_to
from .template import template_digest

VERSION = 1
# Reading less than this is too quick to be worth a line.
LARGE = 1 << 30  # bytes


class Reading:
    """Digests of files, with the progress shown if they are large together."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._total = sum(path.stat().st_size for path in files if path.is_file())
        self._done = 0
        self._counter = Counter("reading what is locked")

    def sha256(self, path: Path) -> str:
        """OSError."""
        return known_sha256(path, self._advance)

    def close(self) -> None:
        self._counter.close()

    def _advance(self, count: int) -> None:
        self._done += count
        if self._total >= LARGE:
            self._counter(self._done, self._total, None)


def make_lock(value: Callable[[str], Any], template: str | None) -> dict[str, Any]:
    """The lock of a plan's inputs as they are now, as schema/lock.schema.json has it. `template` is the text of the
    recipe's own chat template. UserError for an input that is missing.
    """
    inputs = list(inputs_of(value))
    reading = Reading([path for one in inputs for path in one.digested])
    try:
        content = {
            one.key: {
                "path": one.path,
                "kind": one.kind,
                "files": {
                    **{
                        str(path): {"size": path.stat().st_size, "sha256": reading.sha256(path)}
                        for path in one.digested
                    },
                    **{str(path): {"size": path.stat().st_size} for path in one.sized},
                },
            }
            for one in inputs
        }
    except OSError as error:
        raise UserError(f"`{error.filename}` cannot be read: {error.strerror}", relative_to()) from None
    finally:
        reading.close()
    return {"lock_version": VERSION, "inputs": content, "chat_template": template_digest(value, template)}
