"""A stand-in for docker, podman, apptainer and singularity, none of which can be had in a test: no image is fetched.

Run as `docker run ...` it writes its words to $RECORD and its environment to $RECORD.environment. With $IMAGE it then
does what they ask for: it goes on in a mount namespace of its own, in which there are the folders named in $IMAGE
(parted by colons), some parts of the system, and what is mounted; nothing else. That needs root.
"""

import csv
import os
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ENGINES = ("docker", "podman", "apptainer", "singularity")
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/sbin", "/etc", "/dev", "/proc", "/sys")
PREFIXES = {"apptainer": "APPTAINERENV_", "singularity": "SINGULARITYENV_"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    source: str
    target: str
    is_read_only: bool


@dataclass(slots=True, kw_only=True)
class Request:
    """What the words behind `docker run` or `apptainer exec` ask for; `options` are the other ones."""

    image: str
    command: list[str]
    mounts: list[Mount] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    options: dict[str, list[str]] = field(default_factory=dict)


def install(folder: Path) -> None:
    """Put the fakes into `folder`, which is to be on PATH."""
    for name in ENGINES:
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" {name} "$@"\n')
        (folder / name).chmod(stat.S_IRWXU)


def read(words: list[str]) -> Request:
    """Reads options up to the first word without dashes, as the engines do: that is the image."""
    at = next(number for number, word in enumerate(words) if not word.startswith("-"))
    request = Request(image=words[at], command=words[at + 1 :])
    for word in words[:at]:
        name, _, value = word.removeprefix("--").partition("=")
        if name == "mount":
            request.mounts.append(_mount(value))
        elif name == "env":
            request.names.append(value)
        else:
            request.options.setdefault(name, []).append(value)
    return request


def _mount(text: str) -> Mount:
    """`type=bind,source=...,destination=...[,ro]`, a record of CSV for each of the four."""
    (fields,) = csv.reader([text], strict=True) if "\n" not in text else csv.reader(text.splitlines(True), strict=True)
    pairs = dict(one.partition("=")[::2] for one in fields)
    assert pairs.pop("type") == "bind"
    is_read_only = pairs.pop("ro", None) is not None
    return Mount(source=pairs.pop("source"), target=pairs.pop("destination"), is_read_only=is_read_only)


def inside(engine: str, request: Request) -> dict[str, str]:
    """The environment in the container. docker and podman take values by name, the others by a prefix."""
    prefix = PREFIXES.get(engine)
    found = {"PATH": os.environ["PATH"]} | {key: os.environ[key] for key in ("RECORD",) if key in os.environ}
    if prefix:
        assert "cleanenv" in request.options
        found |= {key.removeprefix(prefix): value for key, value in os.environ.items() if key.startswith(prefix)}
    for name in request.names:
        key, given, value = name.partition("=")
        if given or key in os.environ:
            found[key] = value if given else os.environ[key]
    return found


def _bind(source: Path, target: Path, *, is_read_only: bool, recursive: bool = False) -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    subprocess.run(["mount", "--rbind" if recursive else "--bind", source, target], check=True)
    if is_read_only:
        subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True)


def is_possible() -> bool:
    """Whether this user may have a mount namespace."""
    words = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return os.geteuid() == 0 and subprocess.run(words, capture_output=True).returncode == 0


def enter(engine: str, request: Request) -> None:
    """Become the command, in a file system that holds what was asked for."""
    missing = [one.source for one in request.mounts if not Path(one.source).exists()]
    if missing:
        sys.exit(f"fake {engine}: bind source path does not exist: {missing}")
    os.unshare(os.CLONE_NEWNS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    root = Path(tempfile.mkdtemp(prefix="fake-engine-"))
    subprocess.run(["mount", "-t", "tmpfs", "none", root], check=True)
    (root / "tmp").mkdir(mode=0o1777)
    for path in (*SYSTEM, *os.environ["IMAGE"].split(":")):
        if Path(path).exists():
            _bind(Path(path), root / path[1:], is_read_only=path not in ("/dev", "/proc", "/sys"), recursive=True)
    for one in request.mounts:
        _bind(Path(one.source), root / one.target[1:], is_read_only=one.is_read_only)
    (start,) = request.options["workdir" if engine in ("docker", "podman") else "pwd"]
    entry = request.options.get("entrypoint", [])
    environment = inside(engine, request)
    os.chroot(root)
    os.chdir(start)
    words = [*entry, *request.command]
    os.execvpe(words[0], words, environment)


def main() -> None:
    engine, verb, *words = sys.argv[1:]
    print(f"this is a fake {engine}", file=sys.stderr)
    assert verb == ("exec" if engine in PREFIXES else "run")
    request = read(words)
    if record := os.environ.get("RECORD"):
        Path(record).write_text("".join(f"{word}\0" for word in sys.argv[1:]))
        Path(f"{record}.environment").write_text("".join(f"{key}={value}\0" for key, value in os.environ.items()))
    if "IMAGE" in os.environ:
        enter(engine, request)


if __name__ == "__main__":
    main()
