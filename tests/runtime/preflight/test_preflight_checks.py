"""What this machine cannot have: GPUs, InfiniBand, clusters. Facts of them are planted, and judged as real ones are."""

import json
import os
import resource
import time
from collections import namedtuple
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from preflight_nodes import Compile

from sftc.runtime.bundle import read_bundle
from sftc.runtime.device import memory_of
from sftc.runtime.preflight import nodes, room
from sftc.runtime.preflight.devices import devices, judge, may_have_gpus
from sftc.runtime.preflight.finding import Finding, Findings
from sftc.runtime.preflight.gpus import look
from sftc.runtime.preflight.nodes import Node, agree, clock, numbered
from sftc.runtime.preflight.places import MARKER, STALE, Markers
from sftc.runtime.preflight.ranks import Ranks, free_port
from sftc.runtime.preflight.several import _blame
from sftc.runtime.record import this_process

H100 = "NVIDIA H100 80GB HBM3"
EVERY_30 = {"train__train_iters": 100, "checkpoint__save_interval": 30}
TWICE = {"train__train_iters": None, "train__epochs": 2.0, "checkpoint__save_interval": 10}
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")


def gpu(name: str = H100, **more: Any) -> dict[str, Any]:
    total = memory_of("H100")
    return {"name": name, "total": total, "free": total, "problem": None, **more}


@pytest.mark.parametrize(
    ("gpus", "hardware", "results"),
    [
        ([gpu()] * 2, "H100", ["ok: 2 of 2 GPUs: NVIDIA H100 80GB HBM3, 79.6 GiB"]),
        ([gpu()] * 3, None, ["ok: 2 of 3 GPUs: NVIDIA H100 80GB HBM3, 79.6 GiB"]),
        ([gpu()], "H100", ["failed: 1 GPU here, and `launch.nproc_per_node` is 2"]),
        ([], None, ["failed: torch finds no GPU here, and `launch.nproc_per_node` is 2"]),
        (
            [gpu(), gpu("NVIDIA A100-SXM4-80GB")],
            "H100",
            ["warning: GPU 1 is a NVIDIA A100-SXM4-80GB, and the recipe is made for `launch.hardware: H100`"],
        ),
        (
            [gpu(), gpu(total=40 << 30)],
            "H100",
            [
                "failed: GPU 1 (NVIDIA H100 80GB HBM3) has 40.0 GiB, and the recipe is made for "
                "`launch.hardware: H100` (79.6 GiB)",
            ],
        ),
        ([gpu(), gpu(free=40 << 30)], None, ["warning: GPU 1: 39.6 GiB of 79.6 GiB are in use already"]),
        (
            [gpu(), gpu(problem="CUDA error: uncorrectable ECC error encountered")],
            None,
            ["failed: GPU 1 (NVIDIA H100 80GB HBM3) cannot be used: CUDA error: uncorrectable ECC error encountered"],
        ),
    ],
)
def test_gpus_against_the_plan(
    monkeypatch: pytest.MonkeyPatch, gpus: list[dict[str, Any]], hardware: str | None, results: list[str]
) -> None:
    """Two of them are used."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = Findings()
    judge(gpus, 2, "cuda", hardware, found)
    assert [f"{one.status}: {one.text}" for one in found.items] == results
    assert all(one.help for one in found.items if one.status != "ok")
    assert found.facts["device"] == "cuda"


def test_a_gpu_that_others_hide_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    found = Findings()
    judge([gpu()], 2, "cuda", None, found)
    assert found.items[0].text == "1 GPU here, CUDA_VISIBLE_DEVICES is 3, and `launch.nproc_per_node` is 2"


@pytest.mark.parametrize(("asked", "status"), [("cpu", "ok"), ("auto", "ok"), ("cuda", "failed")])
@needs_torch
def test_this_machine_without_gpus(compiled: Compile, monkeypatch: pytest.MonkeyPatch, asked: str, status: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not may_have_gpus()
    found = Findings()
    devices(read_bundle(compiled(launch__device=asked)), found)
    assert [one.status for one in found.items] == [status]


@needs_torch
def test_torch_is_asked_for_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert len(look(0)) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


def test_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB is what a container gets by default."""
    state = namedtuple("state", "f_bavail f_frsize")(64 << 8, 4096)
    monkeypatch.setattr(room.os, "statvfs", lambda _: state)
    found = Findings()
    room.shared_memory(True, found)
    room.shared_memory(False, found)
    assert [(one.status, one.text) for one in found.items] == [
        ("warning", "64.0 MiB free in `/dev/shm`, and NCCL wants 1.0 GiB"),
        ("ok", "64.0 MiB free in `/dev/shm`"),
    ]


@pytest.mark.parametrize(
    ("cards", "limit", "capabilities", "status"),
    [
        (["mlx5_0"], 8 << 20, 0, "warning"),
        (["mlx5_0"], 8 << 20, 1 << 14, "ok"),
        (["mlx5_0"], resource.RLIM_INFINITY, 0, "ok"),
        ([], 8 << 20, 0, "skipped"),
    ],
)
def test_locked_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cards: list[str], limit: int, capabilities: int, status: str
) -> None:
    for card in cards:
        (tmp_path / "infiniband" / card).mkdir(parents=True)
    (tmp_path / "status").write_text(f"Name:\tx\nCapEff:\t{capabilities:016x}\n")
    monkeypatch.setattr(room, "INFINIBAND", tmp_path / "infiniband")
    monkeypatch.setattr(room, "STATUS", tmp_path / "status")
    monkeypatch.setattr(room.resource, "getrlimit", lambda _: (limit, limit))
    found = Findings()
    room.locked_memory(True, found)
    assert [one.status for one in found.items] == [status]


@pytest.mark.parametrize(
    ("changes", "present", "due"),
    [
        (EVERY_30, 0, "4 checkpoints to come"),
        (EVERY_30, 3, "1 checkpoint to come"),
        (EVERY_30, 4, "0 checkpoints to come"),
        # One more is there while it is written.
        ({**EVERY_30, "checkpoint__keep": 2}, 0, "3 checkpoints to come"),
        ({**EVERY_30, "checkpoint__keep": 2}, 2, "1 checkpoint to come"),
        (TWICE, 0, "at least 1 checkpoint"),
    ],
)
def test_the_checkpoints_to_come(
    compiled: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], present: int, due: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save = tmp_path / "save"
    for number in range(present):
        folder = save / f"iter_{number + 1:07d}"
        folder.mkdir(parents=True)
        (folder / "metadata.json").write_text("{}")
    (save / "iter_9999999").mkdir(parents=True)  # torn: it does not count
    found = Findings()
    bundle = read_bundle(compiled(**changes, train__lr_warmup_iters=1, eval__eval_interval=100))
    room.disk(bundle, save, found)
    assert [one.status for one in found.items] == ["ok"]
    assert found.items[0].text.startswith(due)


def test_epochs_are_counted_once_the_data_is_prepared(
    compiled: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = read_bundle(compiled(**TWICE, train__lr_warmup_iters=1, eval__eval_interval=100))
    (tmp_path / "runs/quickstart").mkdir(parents=True)
    pointer = {"manifest": bundle.digest, "store": str(tmp_path), "train_samples": 960, "valid_samples": 1}
    (tmp_path / "runs/quickstart/data.json").write_text(json.dumps(pointer))
    found = Findings()
    room.disk(bundle, tmp_path, found)
    assert found.items[0].text.startswith("4 checkpoints to come of ")  # 2 * 960 / 48 = 40 iterations


def of(number: int, **facts: str) -> Node:
    return Node(number=number, host=f"gpu-{number:03}", facts=facts)


def test_most_nodes_are_right() -> None:
    every = [of(number, torch="2.6.0" if number in (1, 5) else "2.7.0") for number in range(8)]
    agree(every)
    assert [node.number for node in every if node.failed()] == [1, 5]
    assert every[5].findings[0].text == "torch 2.6.0, and 2.7.0 on 6 of 8 nodes"


def test_of_two_nodes_the_first_is_right() -> None:
    pair = [of(0, start="starting anew"), of(1, start="resuming at iteration 3")]
    agree(pair)
    assert (pair[0].findings, pair[1].failed("weights")) == ([], True)
    assert pair[1].findings[0].text == "resuming at iteration 3, and starting anew on node 0 (gpu-000)"


@pytest.mark.parametrize(
    ("one", "other", "status"),
    [
        ({"Python": "3.12.1"}, {"Python": "3.12.9"}, "warning"),
        ({"Python": "3.12.1"}, {"Python": "3.13.1"}, "failed"),
        ({"device": "cuda"}, {"device": "cpu"}, "failed"),
        ({"GPUs": "A100"}, {"GPUs": "H100"}, "warning"),
        ({"prepared data": "a"}, {"prepared data": "b"}, "failed"),
        ({"prepared data": "a"}, {}, None),
    ],
)
def test_what_nodes_have_to_agree_on(one: dict[str, str], other: dict[str, str], status: str | None) -> None:
    pair = [of(0, **one), of(1, **other)]
    agree(pair)
    assert [found.status for found in pair[1].findings] == ([status] if status else [])


@pytest.mark.parametrize(
    ("stated", "numbers"),
    [
        ([0, 2, 1], [0, 2, 1]),
        ([1, 2], [1, 2]),  # 0 has not come
        ([None, None], [0, 1]),
        ([1, None], [0, 1]),
        ([1, 1], [0, 1]),
        ([0, 3], [0, 1]),
    ],
)
def test_numbers_that_make_no_sense_give_way(stated: list[int | None], numbers: list[int]) -> None:
    assert numbered(stated, 3) == numbers


@pytest.mark.parametrize(
    ("variables", "number"),
    [
        ({"NODE_RANK": "1"}, 1),
        ({"NODE_RANK": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, 1),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, 1),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "16"}, None),  # a task for each GPU: these are no nodes
        ({"NODE_RANK": "one"}, None),
        ({}, None),
    ],
)
def test_who_says_which_node_this_is(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], number: int | None
) -> None:
    for name in ("NODE_RANK", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert nodes.own_number(2) == number


def test_a_missing_node_of_a_job_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """scontrol is a fake: what Slurm says of a job of three nodes."""
    fake = tmp_path / "scontrol"
    fake.write_text('#!/bin/sh\n[ "$*" = "show hostnames" ] && printf "gpu-4\\ngpu-5\\ngpu-9\\n"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "gpu-[4-5,9]")
    monkeypatch.delenv("SLURM_HET_SIZE", raising=False)
    (absent,) = nodes.missing([1, 0], 3, 60.0, "gpu-4")
    assert absent.label == "2 (gpu-9)"
    assert absent.findings[0].text == "did not come within 60 s"


def test_a_first_node_called_localhost_is_the_mistake() -> None:
    (absent,) = nodes.missing([0], 2, 300.0, "localhost")
    assert (
        absent.findings[0].help == "MASTER_ADDR is localhost, which every machine takes for itself: name the first node"
    )


@pytest.mark.parametrize(
    ("skew", "uncertain", "status"),
    [(0.5, 0, "ok"), (-1.5, 0, "warning"), (1.5, 1.0, "ok"), (12, 0, "failed"), (-12, 3, "warning")],
)
def test_how_far_clocks_may_differ(skew: float, uncertain: float, status: str) -> None:
    assert clock(skew, uncertain).status == status


@needs_torch
def test_the_ranks_of_one_node_reduce() -> None:
    ranks = Ranks(2, "cpu")
    try:
        assert ranks.load() is None
        found = ranks.reduce("127.0.0.1", free_port(), 0, 2)
    finally:
        ranks.end()
    assert (found.status, found.text) == ("ok", "2 processes over gloo")


def test_where_all_waited_in_vain_it_is_the_way_between_them() -> None:
    waited = Finding(check="all-reduce", status="skipped", text="the process waited in vain (gloo)")
    pair = [Node(number=number, host=None, findings=[waited]) for number in (0, 1)]
    _blame(pair)
    assert [one.status for node in pair for one in node.findings] == ["failed", "failed"]
    blamed = Finding(check="all-reduce", status="failed", text="the process ended with status -9 (gloo)")
    pair = [Node(number=0, host=None, findings=[waited]), Node(number=1, host=None, findings=[blamed])]
    _blame(pair)
    assert [one.status for node in pair for one in node.findings] == ["skipped", "failed"]


def marker(folder: Path, number: int, text: str, *, age: float = 0.0) -> Path:
    path = folder / f"{MARKER}{number:032x}"
    path.write_text(text)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_what_killed_preflights_have_left_is_removed_and_nothing_else(compiled: Compile, root: Path) -> None:
    folder = root / "runs/quickstart/checkpoints"
    folder.mkdir(parents=True)
    mine = asdict(this_process())

    def of(**facts: Any) -> str:
        return json.dumps(mine | facts)

    gone = [
        marker(folder, 1, of(born="1")),
        marker(folder, 2, of(machine="another"), age=STALE + 60),
        marker(folder, 3, "", age=STALE + 60),
        marker(folder, 4, f"{MARKER}{4:032x}", age=STALE + 60),
    ]
    kept = [
        marker(folder, 5, of(), age=STALE + 60),  # lives, and waits
        marker(folder, 6, of(machine="another"), age=STALE - 60),
        marker(folder, 7, "", age=STALE - 60),
        marker(folder, 8, "notes", age=STALE + 60),
        marker(folder, 9, "[3]", age=STALE + 60),
        marker(folder, 10, of(machine="another") + " " * 2000, age=STALE + 60),
        folder / f"{MARKER}{11:032x}",
        folder / f"{MARKER}mine",
        folder / f"{MARKER}{12:032x}",
    ]
    kept[-3].symlink_to(root / "nowhere")
    kept[-2].write_text(of(born="1"))
    kept[-1].mkdir()
    markers, findings = Markers(read_bundle(compiled())), Findings()
    markers.folders = {key: root / path for key, path in markers.folders.items()}
    markers.plant(findings)
    assert [one.status for one in findings.items] == ["ok"]
    assert [path for path in gone if path.exists()] == []
    assert set(folder.iterdir()) == {*kept, folder / markers.name}
    other = Markers(read_bundle(compiled("other")))
    other.folders = markers.folders
    other.plant(Findings())
    assert (folder / markers.name).exists()  # of a preflight that goes on
    for one in (markers, other):
        one.remove(folders=False)
    assert set(folder.iterdir()) == set(kept)
