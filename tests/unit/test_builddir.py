"""The build dir on disk: states, what is overwritten, what never is, and what a crash leaves."""

import hashlib
import os
from pathlib import Path

import pytest

from sftc.compiler import builddir
from sftc.compiler.builddir import State, apply, scan
from sftc.compiler.manifest import BUILD_TYPE, make_sums
from sftc.compiler.render import Artifact


def build(**contents: str) -> tuple[Artifact, ...]:
    """Artifacts as compile makes them: two files, a manifest, the digests of all three, and origins.json."""
    files = [Artifact(path=f"{name}.txt", content=text.encode()) for name, text in contents.items()]
    manifest = Artifact(path="manifest.json", content=f"{BUILD_TYPE} {sorted(contents.items())}".encode())
    return (*files, manifest, make_sums((*files, manifest)), Artifact(path="origins.json", content=b"{}"))


def write(directory: Path, artifacts: tuple[Artifact, ...]) -> list[str]:
    return apply(directory, artifacts, scan(directory, artifacts))


def test_a_fresh_directory_becomes_clean(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "build"
    assert set(scan(target, build(a="1")).states.values()) == {State.MISSING}
    write(target, build(a="1"))
    assert scan(target, build(a="1")).clean


def test_digests_are_written_last(tmp_path: Path) -> None:
    assert write(tmp_path, build(a="1", b="2"))[-2:] == ["manifest.json", "SHA256SUMS"]


def test_unchanged_files_keep_their_time(tmp_path: Path) -> None:
    write(tmp_path, build(a="1", b="1"))
    before = (tmp_path / "a.txt").stat().st_mtime_ns
    assert write(tmp_path, build(a="1", b="2")) == ["b.txt", "manifest.json", "SHA256SUMS"]
    assert (tmp_path / "a.txt").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("disturb", "state"),
    [
        (lambda path: path.write_text("edited"), State.EDITED),
        (lambda path: path.unlink(), State.MISSING),
        (lambda path: (path.unlink(), path.mkdir()), State.FOREIGN),
        (lambda path: (path.rename(path.with_name("moved")), path.symlink_to("moved")), State.FOREIGN),
    ],
)
def test_states_of_one_file(tmp_path: Path, disturb, state: State) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, build(a="1", b="1"))
    disturb(tmp_path / "a.txt")
    assert scan(tmp_path, build(a="1", b="1")).having(state) == ["a.txt"]


def test_a_changed_recipe_makes_files_stale(tmp_path: Path) -> None:
    write(tmp_path, build(a="1", b="1"))
    drift = scan(tmp_path, build(a="2", b="1"))
    assert drift.having(State.STALE) == ["a.txt", "manifest.json", "SHA256SUMS"]
    assert drift.having(State.CLEAN) == ["b.txt", "origins.json"]


def test_a_file_without_record_is_foreign(tmp_path: Path) -> None:
    for name in ("a.txt", "SHA256SUMS", "manifest.json", "origins.json"):
        (tmp_path / name).write_text("somebody's own")
    foreign = scan(tmp_path, build(a="1")).having(State.FOREIGN)
    assert sorted(foreign) == ["SHA256SUMS", "a.txt", "manifest.json", "origins.json"]


@pytest.mark.parametrize("manifest", [None, "{}"])
def test_the_digests_of_somebody_else_make_nothing_ours(tmp_path: Path, manifest: str | None) -> None:
    """A download often comes with a SHA256SUMS: what it names is neither removed nor overwritten."""
    contents = {"model.bin": "weights", "a.txt": "1"} | ({"manifest.json": manifest} if manifest else {})
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    sums = "".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in contents.items())
    (tmp_path / "SHA256SUMS").write_text(sums)
    drift = scan(tmp_path, build(a="2"))
    assert {"a.txt", "SHA256SUMS"} <= set(drift.having(State.FOREIGN))
    assert drift.having(State.LEFTOVER, State.EDITED, State.STALE) == []


def test_what_is_no_plain_file_is_foreign(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    assert scan(tmp_path, build(a="1")).having(State.FOREIGN) == ["a.txt"]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "notes.md").write_text("mine")
    write(tmp_path, build(a="1"))
    write(tmp_path, build(b="1"))
    assert (tmp_path / "notes.md").read_text() == "mine"
    assert (tmp_path / "lib").is_dir()


def test_a_file_of_an_earlier_compile_is_removed_unless_edited(tmp_path: Path) -> None:
    write(tmp_path, build(a="1", old="1"))
    assert scan(tmp_path, build(a="1")).having(State.LEFTOVER) == ["old.txt"]
    write(tmp_path, build(a="1"))
    assert not (tmp_path / "old.txt").exists()
    write(tmp_path, build(a="1", old="1"))
    (tmp_path / "old.txt").write_text("edited")
    assert scan(tmp_path, build(a="1")).having(State.EDITED) == ["old.txt"]


def test_names_that_leave_the_directory_are_ignored(tmp_path: Path) -> None:
    """SHA256SUMS is a file that anybody may have written: it must not make sftc delete things elsewhere."""
    outside = tmp_path / "precious.txt"
    outside.write_text("1")
    inside = tmp_path / "build"
    write(inside, build(a="1"))
    sums = inside / "SHA256SUMS"
    sums.write_text(sums.read_text() + sums.read_text().split()[0] + "  ../precious.txt\n")
    write(inside, build(a="2"))
    assert outside.read_text() == "1"


@pytest.mark.parametrize("crash_at", range(4))
def test_a_crash_leaves_whole_files_and_the_next_compile_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    write(tmp_path, build(a="1", b="1"))
    replaced = []

    def replace(target: Path, artifact: Artifact) -> None:
        if len(replaced) == crash_at:
            raise KeyboardInterrupt
        replaced.append(artifact.path)
        original(target, artifact)

    original = builddir._replace
    monkeypatch.setattr(builddir, "_replace", replace)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, build(a="2", b="2"))
    for name in ("a", "b"):
        assert (tmp_path / f"{name}.txt").read_text() in {"1", "2"}
    assert not scan(tmp_path, build(a="2", b="2")).clean
    monkeypatch.setattr(builddir, "_replace", original)
    drift = scan(tmp_path, build(a="2", b="2"))
    assert not drift.having(State.EDITED, State.FOREIGN)
    write(tmp_path, build(a="2", b="2"))
    assert scan(tmp_path, build(a="2", b="2")).clean


def test_a_failed_write_leaves_no_scraps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(builddir.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, build(a="1"))
    assert list(tmp_path.iterdir()) == []


def test_modes_do_not_follow_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        write(tmp_path, (Artifact(path="run.sh", content=b"", mode=0o755), Artifact(path="a.txt", content=b"")))
    finally:
        os.umask(previous)
    assert (tmp_path / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644
