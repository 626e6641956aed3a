"""A build dir is read only if it is what was compiled."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from build_dir import digest_of, write_build

from sftc.runtime.bundle import read_bundle
from sftc.runtime.checkpoint.start import Start
from sftc.runtime.errors import UserError
from sftc.runtime.launch import Evaluation, Length, arguments_of


def test_values_are_found_by_their_key(tmp_path: Path) -> None:
    bundle = read_bundle(write_build(tmp_path / "b", values={"train.lr": 0.5}))
    assert bundle.value("train.lr") == 0.5
    assert bundle.value("model.load") is None
    with pytest.raises(UserError, match=r"says nothing of `train\.learning_rate`: it was compiled by another sftc"):
        bundle.value("train.learning_rate")
    assert bundle.value("train.learning_rate", 1) == 1
    assert bundle.value("train.lr", 1) == 0.5


def test_the_digest_of_the_manifest_names_the_build(tmp_path: Path) -> None:
    one, other = write_build(tmp_path / "one"), write_build(tmp_path / "other", values={"train.lr": 0.5})
    assert read_bundle(one).digest == digest_of(one) != read_bundle(other).digest


@pytest.mark.parametrize(
    "name", ["plan.json", "megatron.args", "forward_step.py", "manifest.json", "megatron.cpu.args"]
)
def test_one_changed_byte_is_named(tmp_path: Path, name: str) -> None:
    build = write_build(tmp_path / "b")
    content = bytearray((build / name).read_bytes())
    content[len(content) // 2] ^= 1
    (build / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}` is not what was compiled") as caught:
        read_bundle(build)
    assert "compile again" in str(caught.value.help)


@pytest.mark.parametrize("name", ["forward_step.py", "megatron.cpu.args"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    build = write_build(tmp_path / "b")
    (build / name).unlink()
    with pytest.raises(UserError, match=f"{name}` belongs to the build and cannot be read"):
        read_bundle(build)


def test_a_file_that_no_digest_covers_is_not_run(tmp_path: Path) -> None:
    build = write_build(tmp_path / "b")
    lines = (build / "SHA256SUMS").read_text().splitlines(keepends=True)
    (build / "SHA256SUMS").write_text("".join(line for line in lines if "forward_step.py" not in line))
    with pytest.raises(UserError, match=r"does not list `forward_step\.py`"):
        read_bundle(build)


def test_digests_reach_no_file_outside(tmp_path: Path) -> None:
    build = write_build(tmp_path / "b")
    with (build / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  ../elsewhere\n")
    with pytest.raises(UserError, match="line 6 is no digest line"):
        read_bundle(build)


def test_another_directory_is_no_build_dir(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no build dir"):
        read_bundle(tmp_path)


def test_a_plan_of_another_version_is_refused(tmp_path: Path) -> None:
    build = write_build(tmp_path / "b")
    plan = json.loads((build / "plan.json").read_text()) | {"plan_version": 2}
    old = hashlib.sha256((build / "plan.json").read_bytes()).hexdigest()
    (build / "plan.json").write_text(json.dumps(plan))
    new = hashlib.sha256((build / "plan.json").read_bytes()).hexdigest()
    (build / "SHA256SUMS").write_text((build / "SHA256SUMS").read_text().replace(old, new))
    with pytest.raises(UserError, match="has plan_version 2, this sftc reads 1"):
        read_bundle(build)


def test_arguments_that_no_digest_covers_are_not_used(tmp_path: Path) -> None:
    """A build for one device has no supplement; a file of its name that lies there was reviewed by nobody."""
    bundle = read_bundle(write_build(tmp_path / "b"))
    start = Start(kind="random", iteration=0, line="")
    seen = Evaluation(iterations=0, derived=False, line="")
    assert "gloo" in arguments_of(bundle, start, "cpu", Length(iterations=8), seen)
    without = replace(bundle, files=bundle.files - {"megatron.cpu.args"})
    assert "gloo" not in arguments_of(without, start, "cpu", Length(iterations=8), seen)


def test_an_edit_with_fitting_digests_has_another_identity(tmp_path: Path) -> None:
    """Whoever edits a file and renews SHA256SUMS still cannot run it under the name of the reviewed build."""
    build = write_build(tmp_path / "b")
    before = hashlib.sha256((build / "forward_step.py").read_bytes()).hexdigest()
    (build / "forward_step.py").write_text("# another step\n")
    after = hashlib.sha256((build / "forward_step.py").read_bytes()).hexdigest()
    sums = (build / "SHA256SUMS").read_text()
    (build / "SHA256SUMS").write_text(sums.replace(before, after))
    with pytest.raises(UserError, match=r"disagree about `forward_step\.py`"):
        read_bundle(build)
