"""One node, as a person and as launch.sh ask for it: what it says, what it leaves behind, what it costs."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from disks import small_disk_at
from preflight_nodes import Compile, Nodes, ended, found, left
from ranks import environment

pytestmark = pytest.mark.skipif(find_spec("megatron") is None, reason="needs torch and megatron-core to be installed")
LAUNCHED = ("sftc.runtime", "preflight")
TYPED = ("sftc.compiler", "preflight")


def run(words: tuple[str, ...], build: Path, root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in environment().items() if not name.startswith(("SLURM", "MASTER_", "SFTC_"))}
    command = [sys.executable, "-m", *words, str(build), *options]
    return subprocess.run(command, cwd=root, env=clean, capture_output=True, text=True, timeout=240)


def test_the_table_of_a_node_that_is_fine(compiled: Compile, root: Path) -> None:
    done = run(TYPED, compiled(), root)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "check       result"
    checks = [line.split()[:2] for line in lines[1:-2]]
    names = ("build", "versions", "devices", "data", "tokenizer", "weights", "paths", "disk", "shm")
    assert checks[:-2] == [[name, "ok"] for name in names]
    assert checks[-2:] == [["memlock", "skipped"], ["all-reduce", "skipped"]]
    assert lines[-1].startswith("preflight: 1 node, 9 checks, all fine (")
    assert sorted(path.name for path in root.iterdir()) == ["recipes"], "what it made is still there"


def test_launch_gets_one_line(compiled: Compile, root: Path) -> None:
    done = run(LAUNCHED, compiled(), root)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("preflight: 1 node, 9 checks, all fine (")
    assert done.stderr.count("\n") == 1


def test_one_node_without_gpus_never_pays_for_torch(compiled: Compile, root: Path) -> None:
    code = (
        "import sys; from sftc.runtime.__main__ import main; status = main(['preflight', sys.argv[1]]); "
        "print(status, *sorted({'torch', 'numpy', 'tokenizers', 'megatron.core'} & set(sys.modules)))"
    )
    build = compiled(launch__device="auto")
    done = subprocess.run(
        [sys.executable, "-c", code, build], cwd=root, env=environment(), capture_output=True, text=True
    )
    assert done.stdout == "0\n", done.stderr


def test_json_is_one_object(compiled: Compile, root: Path) -> None:
    done = run(TYPED, compiled(), root, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["status"]) == (0, "ok")
    (node,) = document["nodes"]
    assert {one["check"]: one["status"] for one in node["checks"]}["disk"] == "ok"
    assert set(node["checks"][0]) == {"check", "status", "text", "help"}


def test_a_login_node_says_what_it_could_not_check(compiled: Compile, root: Path) -> None:
    done = run(TYPED, compiled(launch__nnodes=4, train__global_batch_size=32), root, "--json")
    assert done.returncode == 0
    for check in ("nodes", "port", "shared", "clock", "all-reduce"):
        assert found(done.stdout, check)[0][0][0] == "skipped", check
    assert "1 of 4 nodes: MASTER_ADDR is not set" in found(done.stdout, "nodes")[0][0][1]
    table = run(TYPED, compiled("again", launch__nnodes=4, train__global_batch_size=32), root)
    assert "preflight: 1 of 4 nodes, 9 checks, all fine (" in table.stdout


def test_something_that_is_no_build_dir_is_refused(root: Path) -> None:
    done = run(TYPED, root, root)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: `{root}` is no build dir")


def test_a_file_in_the_place_of_a_directory_is_named(compiled: Compile, root: Path) -> None:
    (root / "runs").mkdir()
    (root / "runs/quickstart").write_text("")
    done = run(LAUNCHED, compiled(), root)
    assert (done.returncode, done.stdout) == (1, "")
    line, help_line = [line for line in done.stderr.splitlines() if "checkpoint.save" in line]
    assert line.startswith("paths       failed   `checkpoint.save`: `runs/quickstart/checkpoints` cannot be written: ")
    assert help_line.strip().startswith("help: see `checkpoint.save`")
    assert done.stderr.splitlines()[-2].startswith("preflight: 1 node, 8 checks, data, paths failed (")
    assert done.stderr.splitlines()[-1].startswith("nothing was started; `bash launch.sh --no-preflight`")


@pytest.mark.parametrize(
    ("check", "key", "value", "words"),
    [
        ("data", "data__train_data_path", "absent.jsonl", "there is no file `absent.jsonl`"),
        ("tokenizer", "tokenizer__path", "absent", "there is no `absent/tokenizer.json`"),
        ("weights", "model__load", "absent", "`model.load: absent` holds no Megatron checkpoint"),
        ("versions", "megatron__target", "0.17", "this build is for Megatron 0.17, installed is 0."),
    ],
)
def test_what_is_missing_is_named(compiled: Compile, root: Path, check: str, key: str, value: str, words: str) -> None:
    changes = {key: value, **({"model__init": None} if check == "weights" else {})}
    done = run(TYPED, compiled(**changes), root, "--json")
    assert done.returncode == 1
    ((result, text),) = found(done.stdout, check)[0]
    assert result == "failed"
    assert words in text
    assert all(one["help"] for one in json.loads(done.stdout)["nodes"][0]["checks"] if one["status"] == "failed")
    others = [one for one in json.loads(done.stdout)["nodes"][0]["checks"] if one["check"] != check]
    assert "failed" not in {one["status"] for one in others}


def test_a_file_system_that_hangs_is_named(compiled: Compile, root: Path, nodes: Nodes) -> None:
    """A pipe that nobody writes to blocks whoever opens it, as a file on a lost server does."""
    (root / "pipes").mkdir()
    os.mkfifo(root / "pipes/config.json")
    build = compiled(model__load="hf:pipes", model__init=None)
    status, out, _ = ended(nodes.start(build, root, json=True, SLOW=3.0))
    assert status == 1
    assert found(out, "weights")[0] == [("failed", "not answered within 3 s")]
    assert found(out, "paths")[0][0][0] == "ok"
    assert left(root) == []


def test_what_a_killed_preflight_leaves_the_next_one_removes(compiled: Compile, root: Path, nodes: Nodes) -> None:
    waiting = nodes.start(compiled(launch__nnodes=2), root, 0)
    while len(left(root)) < 2:  # in the run path, and where it saves
        assert waiting.poll() is None
        time.sleep(0.05)
    marked = left(root)
    assert run(LAUNCHED, compiled("other"), root).returncode == 0
    assert sorted(left(root)) == sorted(marked), "it was alive"
    waiting.kill()
    waiting.wait()
    assert sorted(left(root)) == sorted(marked)
    assert run(LAUNCHED, compiled("next"), root).returncode == 0
    assert left(root) == []


@pytest.fixture
def small_disk(root: Path) -> Iterator[Path]:
    """A file system of 8 MiB where checkpoints go."""
    with small_disk_at(root / "runs/quickstart/checkpoints", "8m") as place:
        yield place


def test_a_disk_that_is_too_small_is_named_with_the_arithmetic(compiled: Compile, small_disk: Path, root: Path) -> None:
    """The quickstart's checkpoints have 4.9 MiB."""
    many = run(TYPED, compiled(checkpoint__save_interval=100), root, "--json")
    text = "3 checkpoints to come of 4.9 MiB, 14.6 MiB in all; 8.0 MiB free in `runs/quickstart/checkpoints`"
    assert (many.returncode, found(many.stdout, "disk")[0]) == (1, [("failed", text)])
    one = run(TYPED, compiled("last", checkpoint__save_interval=300), root, "--json")
    text = "1 checkpoint to come of 4.9 MiB; 8.0 MiB free in `runs/quickstart/checkpoints`"
    assert (one.returncode, found(one.stdout, "disk")[0]) == (0, [("ok", text)])
    (small_disk / "others").write_bytes(bytes(4 << 20))
    full = run(TYPED, compiled("full", checkpoint__save_interval=300), root)
    assert full.returncode == 1
    (line,) = [line for line in full.stdout.splitlines() if "help: " in line]
    assert re.fullmatch(
        r" +help: make room for 9\d\d\.\d KiB more, keep fewer \(`checkpoint\.keep`\), or save .*", line
    )


def test_launch_starts_no_rank_on_a_disk_that_is_too_small(compiled: Compile, small_disk: Path, root: Path) -> None:
    """The whole launch.sh: the data is prepared, and then it ends, unless it is told not to look."""
    build = compiled(checkpoint__save_interval=100)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["bash", str(build / "launch.sh")]
    done = subprocess.run(command, cwd=root, env=environment(PATH=path), capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert any(line.startswith("data prepared in ") for line in lines)
    assert any(line.startswith("disk        failed   3 checkpoints to come of 4.9 MiB") for line in lines)
    assert lines[-2].startswith("preflight: 1 node, 9 checks, disk failed (")
    assert not (root / "runs/quickstart/logs").exists()
    assert left(root) == []
