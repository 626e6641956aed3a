"""Who trains into a checkpoint directory: a lock file with the owner's name, and a beat by which others see it alive.

Locks of the kernel do not reach over every file system that nodes share, and a clock of another node may be wrong.
So the owner touches its file again and again, and whoever wants the directory watches whether that goes on.
"""

import getpass
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex

from ..errors import UserError
from ..record import Process, Stopwatch, epoch_seconds, host_name, now, pause, run_id, slurm_job, this_process

FILE = "owner.json"
BEAT = 5.0  # seconds between two signs of life
PATIENCE = 30.0  # seconds without one after which an owner on another machine is taken to be dead
SETTLING = 1.0  # seconds after which of several that took a dead owner's place at once the last one is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """One supervisor. `job` is the same on all nodes of a run; `machine` tells one process-number space from others."""

    token: str
    job: str
    user: str
    host: str
    pid: int
    born: str | None
    machine: str | None
    slurm_job: str | None
    restart: int
    since: str

    @property
    def name(self) -> str:
        """Such as `ann on node7, process 4711, Slurm job 12, since 2026-01-31T12:00:00+00:00`."""
        job = f", Slurm job {self.slurm_job}" if self.slurm_job else ""
        return f"{self.user} on {self.host}, process {self.pid}{job}, since {self.since}"

    @property
    def lives_here(self) -> bool | None:
        """Whether its process lives; None if that cannot be seen from here."""
        return Process(pid=self.pid, born=self.born, machine=self.machine).lives_here


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A lock file as it was found. `owner` is None where the file is torn."""

    owner: Owner | None
    beat: int  # changes as long as the owner lives

    @property
    def name(self) -> str:
        return self.owner.name if self.owner else "somebody whose name cannot be read"

    @property
    def silence(self) -> float:
        """Seconds since the last sign of life, by the two machines' clocks."""
        return epoch_seconds() - self.beat / 1e9

    @property
    def is_alive(self) -> bool:
        """At a glance: by its process where that can be seen from here, else by the two machines' clocks."""
        lives = self.owner.lives_here if self.owner else None
        return self.silence < PATIENCE if lives is None else lives


def read_owner(save: Path) -> Seen | None:
    """The lock of a checkpoint directory; None if nobody holds it. OSError as usual."""
    try:
        with (save / FILE).open(encoding="utf-8") as file:
            beat, text = os.fstat(file.fileno()).st_mtime_ns, file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return Seen(owner=Owner(**json.loads(text)), beat=beat)
    except (ValueError, TypeError):
        return Seen(owner=None, beat=beat)


def require_free(save: Path, name: str) -> None:
    """UserError if another run visibly trains into `save`; `name` is this run's. Hold.take() is what decides."""
    try:
        seen = read_owner(save)
    except OSError as error:
        raise unwritable(save / FILE, error.strerror) from None
    owner = _identity(name)
    is_own = seen is not None and seen.owner is not None and seen.owner.job == owner.job
    if seen is not None and seen.is_alive and not is_own and not _is_superseded(seen, owner):
        raise _in_use(save, seen)


class Hold:
    """This supervisor's hold on a checkpoint directory. On several nodes the first one holds it for all of them."""

    def __init__(self, save: Path, name: str, say: Callable[[str], None], *, patience: float = PATIENCE) -> None:
        self._save, self._path, self._say, self._patience = save, save / FILE, say, patience
        self._owner = _identity(name)
        self._clock, self._quiet = Stopwatch(), 0.0
        self._watched: int | None = None  # the beat of the node that holds it for this one

    def take(self) -> None:
        """UserError if another run is alive in the directory. Waits to see whether one on another machine is."""
        try:
            self._save.mkdir(parents=True, exist_ok=True)
            while not self._create():
                seen = read_owner(self._save)
                if seen is None:
                    continue
                if seen.owner and seen.owner.job == self._owner.job and seen.owner.lives_here is not False:
                    self._watched = seen.beat
                    return
                if not _is_superseded(seen, self._owner) and self._outlives(seen):
                    raise _in_use(self._save, seen)
                self._say(f"`{self._save}` was left by {seen.name}, which is gone: this run takes it over")
                self._replace()
                return
        except OSError as error:
            raise unwritable(self._path, error.strerror) from None

    def keep(self) -> str | None:
        """Call it often. The name of whoever has taken the directory; None as long as it is this run's."""
        self._quiet += self._clock.lap()
        if self._quiet < BEAT:
            return None
        try:
            seen = read_owner(self._save)
            if seen is None:
                self._create()
                self._watched = None
            elif seen.owner is None or seen.owner.job != self._owner.job:
                return seen.name
            elif seen.owner.token == self._owner.token:
                os.utime(self._path)
            elif seen.beat != self._watched:
                self._watched = seen.beat
            elif self._quiet < self._patience:
                return None
            else:
                self._replace()
        except (OSError, UserError):  # a file server that is away for a while; a full disk
            return None
        self._quiet = 0.0
        return None

    def release(self) -> None:
        try:
            seen = read_owner(self._save)
            if seen is not None and seen.owner is not None and seen.owner.token == self._owner.token:
                self._path.unlink()
        except OSError:
            self._say(f"WARNING: `{self._path}` stays; the next run of another machine waits {self._patience:.0f} s")

    def _create(self) -> bool:
        """False if there is one."""
        try:
            with self._path.open("x", encoding="utf-8") as file:
                file.write(self._text())
        except FileExistsError:
            return False
        return True

    def _replace(self) -> None:
        """Be the owner in place of a dead one. UserError if somebody else was later."""
        scratch = self._path.with_name(f"{FILE}.{self._owner.token}")
        scratch.write_text(self._text(), encoding="utf-8")
        os.replace(scratch, self._path)  # noqa: PTH105 - the atomic call by its name
        pause(SETTLING)
        self._watched, seen = None, read_owner(self._save)
        if seen is None or (seen.owner and seen.owner.token == self._owner.token):
            return
        if seen.owner is None or seen.owner.job != self._owner.job:
            raise _in_use(self._save, seen)
        self._watched = seen.beat

    def _outlives(self, seen: Seen) -> bool:
        """Whether an owner is alive, which on another machine takes up to the patience to see."""
        if seen.owner and (lives := seen.owner.lives_here) is not None:
            return lives
        self._say(f"`{self._save}` is in the hands of {seen.name}: watching for {self._patience:.0f} s if it lives")
        clock, waited = Stopwatch(), 0.0
        while waited < self._patience:
            pause(min(0.5, self._patience / 10))
            waited += clock.lap()
            found = read_owner(self._save)
            if found is None:
                return False
            if found.beat != seen.beat:
                return True
        return False

    def _text(self) -> str:
        return json.dumps(asdict(self._owner), indent=2) + "\n"


def _identity(name: str) -> Owner:
    """This process as an owner. Nodes that meet at one place under one name are one run."""
    token, restart = token_hex(8), os.environ.get("SLURM_RESTART_COUNT", "0")
    place = os.environ.get("MASTER_ADDR")
    return Owner(
        token=token,
        job=f"{place}:{os.environ.get('MASTER_PORT', '')} {run_id(name)}" if place else token,
        user=_user(),
        host=host_name(),
        **asdict(this_process()),
        slurm_job=slurm_job(),
        restart=int(restart) if restart.isdecimal() else 0,
        since=now(),
    )


def _is_superseded(seen: Seen, owner: Owner) -> bool:
    """Slurm starts a job again once its processes are gone, on other nodes as a rule."""
    before = seen.owner
    return before is not None and before.slurm_job == owner.slurm_job is not None and before.restart < owner.restart


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run a user without a name
        return f"user {os.getuid()}"


def _in_use(save: Path, seen: Seen) -> UserError:
    end = "let it end, or end it"
    if seen.owner:
        end += f" (`scancel {seen.owner.slurm_job}`)" if seen.owner.slurm_job else f" (`kill {seen.owner.pid}` there)"
    return UserError(
        f"`{save}` is in use: {seen.name} trains into it",
        help=f"{end}; two runs at once need a `checkpoint.save` and a `logging.run_path` of their own",
    )


def unwritable(path: Path, reason: str | None) -> UserError:
    return UserError(f"`{path}` cannot be written: {reason}", help="see `checkpoint.save`")
