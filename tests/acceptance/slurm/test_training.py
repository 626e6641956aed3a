"""The quickstart on two nodes of a real Slurm: undisturbed, and through a preemption and the loss of a node."""

import json
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from cluster import NODES, SPARE, Cluster
from slurm_jobs import Job, compiled, submit

from sftc.runtime import metrics

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs the extra [runtime]: torch and megatron-core"),
]
ITERATIONS, SAVE_INTERVAL, LIMIT = 120, 20, 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A run that ended: its job, how that ended, its directory, the iteration at which it was preempted."""

    job: Job
    state: str
    run: Path
    preempted_at: int = 0


def start(cluster: Cluster, folder: Path, repo_root: Path) -> tuple[Job, Path]:
    (folder / "recipes").symlink_to(repo_root / "recipes")
    build = compiled(
        repo_root / "recipes/quickstart/recipe.yaml",
        folder / "build",
        launch__launcher="slurm",
        launch__nnodes=2,
        launch__device="cpu",
        train__micro_batch_size=16,
        train__train_iters=ITERATIONS,
        checkpoint__save_interval=SAVE_INTERVAL,
        eval__eval_interval=60,
    )
    return submit(cluster, build, folder), folder / "runs/quickstart"


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    job, run = start(cluster, tmp_path_factory.mktemp("undisturbed"), repo_root)
    return Trained(job=job, state=job.ended(LIMIT), run=run)


@pytest.fixture(scope="module")
def disturbed(cluster: Cluster, repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The same, preempted after the first checkpoint. Its second start loses a node, its third has the spare."""
    folder = tmp_path_factory.mktemp("disturbed")
    job, run = start(cluster, folder, repo_root)
    job.until(lambda: reached(run) > SAVE_INTERVAL, "no checkpoint", LIMIT)
    urgent = submit_urgent(cluster, folder)
    assert urgent.ended(LIMIT) == "COMPLETED 0:0 Restarts=0"
    print(f"after the preemption: {job.facts()['JobState']} Restarts={job.facts()['Restarts']}")
    preempted_at = reached(run)
    job.until(lambda: reached(run) > 3 * SAVE_INTERVAL, "the second start gets nowhere", LIMIT)
    cluster.lose_node(NODES[1])
    job.until(lambda: job.facts()["Restarts"] == "2", "not requeued", LIMIT)
    print(f"after the loss of {NODES[1]}: {job.facts()['JobState']} Reason={job.facts()['Reason']} Restarts=2")
    state = job.ended(LIMIT)
    cluster.start_node(NODES[1])
    return Trained(job=job, state=state, run=run, preempted_at=preempted_at)


def submit_urgent(cluster: Cluster, folder: Path) -> Job:
    (folder / "urgent.sh").write_text("#!/bin/bash\nexec srun true\n")
    nodes, log = ",".join(NODES[:2]), folder / "urgent.out"
    words = ("--partition=urgent", f"--nodelist={nodes}", "--exclusive", f"--output={log}", folder / "urgent.sh")
    return Job(cluster=cluster, id=cluster.run("sbatch", "--parsable", *words).strip(), log=log)


def reached(run: Path) -> int:
    return max((line["iteration"] for line in metrics.read(run / metrics.FILE)), default=0)


def curve(trained: Trained) -> list[dict[str, object]]:
    """The metrics but for what the machine decides: speeds, and memory."""
    lines = metrics.read(trained.run / metrics.FILE)
    varying = ("second", "tflops", "memory", "gib", "bytes")
    return [{key: value for key, value in line.items() if not any(word in key for word in varying)} for line in lines]


def test_the_quickstart_trains_on_two_nodes(undisturbed: Trained) -> None:
    assert undisturbed.state == "COMPLETED 0:0 Restarts=0"
    port = 20000 + int(undisturbed.job.id) % 20000
    assert f"launch.sbatch: the nodes meet at {NODES[0]}:{port}\n" in undisturbed.job.text()
    assert undisturbed.job.text().count("preflight: 2 nodes, 14 checks, all fine (") == 1
    assert "2 ranks on cpu" in undisturbed.job.text()
    assert reached(undisturbed.run) == ITERATIONS


def test_nodes_of_an_allocation_check_each_other(cluster: Cluster, repo_root: Path, tmp_path: Path) -> None:
    """As a person asks for it, who sets no MASTER_ADDR."""
    (tmp_path / "recipes").symlink_to(repo_root / "recipes")
    changes = {"launch__nnodes": 2, "launch__device": "cpu", "train__micro_batch_size": 16}
    build = compiled(repo_root / "recipes/quickstart/recipe.yaml", tmp_path / "build", **changes)
    words = ("srun", "--nodes=2", "--ntasks=2", sys.executable, "-m", "sftc.compiler", "preflight", build)
    shown = cluster.run(*words, cwd=tmp_path)
    assert shown.count("preflight: 2 nodes, 14 checks, all fine (") == 1
    assert shown.count("all-reduce  ok       all    2 processes over gloo") == 1


def test_a_preempted_run_that_also_loses_a_node_is_requeued_and_completes(disturbed: Trained) -> None:
    assert disturbed.state == "COMPLETED 0:0 Restarts=2"
    said = disturbed.job.text()
    assert "launch.sbatch: requeued (Slurm wanted the nodes back): restart 1 of at most 3" in said
    assert f"on 127.0.0.[{NODES[0][-2:]},{SPARE[-2:]}], restarted 2 times" in said
    starts = json.loads((disturbed.run / "run.json").read_text())["starts"]
    assert [one["start"] for one in starts] == ["random", "resume", "resume"]
    assert starts[1]["iteration"] >= disturbed.preempted_at > SAVE_INTERVAL, "not saved when asked to"
    assert starts[2]["iteration"] >= 3 * SAVE_INTERVAL
    print(f"preempted at iteration {disturbed.preempted_at}; starts at {[one['iteration'] for one in starts]}")


def test_the_loss_curve_is_that_of_the_undisturbed_run(undisturbed: Trained, disturbed: Trained) -> None:
    assert curve(disturbed) == curve(undisturbed)
    print(f"equal lines of {metrics.FILE}: {len(curve(undisturbed))}; the last: {curve(undisturbed)[-2:]}")
