"""What launch.sbatch makes of Slurm's answers. The jobs, their states and their signals are real; what they run is not:
a stand-in for Python and torchrun, so that no training is started."""

import shutil
import stat
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from cluster import Cluster
from slurm_jobs import WAITS, Job, compiled, submit

RECIPE = """\
name: {name}
task: {{is_sft: true}}
model:
  num_layers: 2
  hidden_size: 128
  ffn_hidden_size: 256
  num_attention_heads: 4
  vocab_size: 512
  max_position_embeddings: 128
  init: random
tokenizer: {{path: tokenizer}}
data: {{train_data_path: train.jsonl}}
train: {{train_iters: 100, global_batch_size: 8, seq_length: 96, precision: fp32, lr: 1e-3}}
launch:
  launcher: slurm
  nnodes: {nnodes}
  nproc_per_node: 1
  device: cpu
  slurm: {{{slurm}}}
"""
type Submit = Callable[..., Job]


# Stands before Slurm's own scontrol: each request is dropped once, as by a controller that is busy. Names of hosts are
# no request.
DROPS = """#!/usr/bin/env bash
[[ $2 != hostnames ]] || exec {scontrol} "$@"
asked=$DROPPED/$(tr -c 'a-z0-9\n' _ <<< "$SLURM_RESTART_COUNT $*")
mkdir "$asked" 2> /dev/null || exec {scontrol} "$@"
kill -PIPE $$
"""


@pytest.fixture
def job(cluster, stand_in, tmp_path) -> Submit:
    """`job("name", "exit 1", "--dependency=...", slurm="max_requeues: 0")` submits a run whose ranks `exit 1`."""

    def submitted(
        name: str, does: str, *options: str, nnodes: int = 2, slurm: str = "", first: str = "", **variables: str
    ) -> Job:
        folder = tmp_path / f"{name} $(touch pwned)"  # sbatch and launch.sbatch have to get along with any name
        folder.mkdir()
        (folder / "recipe.yaml").write_text(RECIPE.format(name=name, nnodes=nnodes, slurm=slurm))
        build = compiled(folder / "recipe.yaml", folder / "build")
        return submit(cluster, build, tmp_path, *options, path=f"{first}{stand_in}", STAND_IN=does, **variables)

    return submitted


def wants_it_back_twice(cluster: Cluster, done: Job) -> None:
    """The signal that Slurm sends before a time limit, sent by hand: Slurm looks at time limits only every 30 s."""
    for start in (1, 2):
        done.says("is 1 of 2", times=start)
        cluster.run("scancel", "--batch", "--signal=USR1", done.id)
        done.says("saves", times=2 * start)
    assert done.ended().startswith("FAILED ")
    assert done.facts()["Restarts"] == "1"


def test_every_node_runs_one_task_and_meets_at_the_first(job: Submit) -> None:
    done = job("meets", "exit 0")
    assert done.ended() == "COMPLETED 0:0 Restarts=0"
    port = 20000 + int(done.id) % 20000
    for task, node in enumerate(("127.0.0.11", "127.0.0.12")):
        assert f"node {node} is {task} of 2, meets at 127.0.0.11:{port}\n" in done.text()
    assert not list(done.log.parent.rglob("pwned"))


def test_what_follows_the_file_reaches_launch_on_every_node(job: Submit) -> None:
    done = job("handed", "exit 0", handed="--no-preflight")
    assert done.ended() == "COMPLETED 0:0 Restarts=0"
    assert done.text().count("launch.sh: no preflight, as --no-preflight asks\n") == 2


def test_a_failing_rank_fails_the_job_and_it_is_not_tried_again(job: Submit) -> None:
    done = job("fails", f"[[ $SLURM_PROCID == 1 ]] && {{ sleep 3; exit 7; }}; {WAITS}")
    assert done.ended() == "FAILED 1:0 Restarts=0"
    assert "task 1: Exited with exit code 7" in done.text()
    assert "launch.sbatch: not requeued: every node answers, so the run itself failed" in done.text()


def test_a_cancelled_job_stays_cancelled(job: Submit, cluster) -> None:
    done = job("cancelled", WAITS)
    done.says("is 1 of 2")
    cluster.run("scancel", done.id)
    assert done.ended().startswith("CANCELLED ")
    done.until(lambda: not cluster.run("squeue", "-h", "-j", done.id, check=False), "still there", 30)
    assert done.facts()["JobState"] == "CANCELLED"
    assert "requeued (" not in done.text()


def test_requeues_are_bounded_and_say_why(job: Submit, cluster) -> None:
    done = job("bounded", WAITS, slurm="max_requeues: 1")
    wants_it_back_twice(cluster, done)
    assert done.text().count("Slurm wants the nodes back: the run is asked to save and to leave") == 2
    assert "requeued (Slurm wanted the nodes back): restart 1 of at most 1 goes on" in done.text()
    assert "not requeued (Slurm wanted the nodes back): launch.slurm.max_requeues is 1" in done.text()


def test_a_controller_that_drops_requests_is_asked_again(job: Submit, cluster, tmp_path) -> None:
    fake = tmp_path / "fakes" / "scontrol"
    fake.parent.mkdir()
    fake.write_text(DROPS.format(scontrol=shutil.which("scontrol")))
    fake.chmod(stat.S_IRWXU)
    dropped = tmp_path / "dropped"
    dropped.mkdir()
    done = job("drops", WAITS, first=f"{fake.parent}:", DROPPED=str(dropped), slurm="max_requeues: 1")
    wants_it_back_twice(cluster, done)
    assert "requeued (Slurm wanted the nodes back): restart 1 of at most 1 goes on" in done.text()
    # of each start: what job this is, whether it was cancelled; then the requeue
    assert len(list(dropped.iterdir())) == 5


def test_dependencies_are_waited_for_and_hopeless_ones_end_the_job(job: Submit) -> None:
    first = job("first", "sleep 2; exit 0", nnodes=1)
    met = job("met", "exit 0", f"--dependency=afterok:{first.id}", nnodes=1)
    stated = job("stated", "exit 0", nnodes=1, slurm=f'dependency: "afternotok:{first.id}"')
    assert met.facts()["Reason"] == "Dependency"
    assert [one.ended() for one in (first, met)] == ["COMPLETED 0:0 Restarts=0"] * 2
    assert met.facts()["StartTime"] >= first.facts()["EndTime"]
    assert stated.ended() == "CANCELLED 0:0 Restarts=0"
    assert stated.text() == ""


def test_an_array_is_a_chain(job: Submit) -> None:
    array = job("chain", "sleep 1; exit 0", nnodes=1, slurm='array: "1-3%1"')
    tasks = [
        Job(cluster=array.cluster, id=f"{array.id}_{task}", log=array.log.with_name(f"chain-{array.id}_{task}.out"))
        for task in (1, 2, 3)
    ]
    assert [task.ended() for task in tasks] == ["COMPLETED 0:0 Restarts=0"] * 3
    assert all("is 0 of 1, meets at nobody" in task.text() for task in tasks)
    times = [(task.facts()["StartTime"], task.facts()["EndTime"]) for task in tasks]
    assert all(before[1] <= after[0] for before, after in pairwise(times)), times


def test_a_task_that_is_asked_to_leave_hands_over_to_the_next(job: Submit, cluster) -> None:
    array = job("hands", f"[[ $SLURM_ARRAY_TASK_ID == 2 ]] || {{ {WAITS}; }}", nnodes=1, slurm='array: "1-2%1"')
    first, second = (
        Job(cluster=cluster, id=f"{array.id}_{task}", log=array.log.with_name(f"hands-{array.id}_{task}.out"))
        for task in (1, 2)
    )
    first.says("is 0 of 1")
    cluster.run("scancel", "--batch", "--signal=USR1", first.id)
    assert first.ended() == "FAILED 75:0 Restarts=0"
    assert "the next task of the array goes on from the last checkpoint" in first.text()
    assert second.ended() == "COMPLETED 0:0 Restarts=0"


def test_groups_of_nodes_are_one_run(job: Submit) -> None:
    """A heterogeneous job; the nodes of the first group have the first ranks."""
    done = job("groups", "exit 0", slurm="groups: [{nnodes: 1, constraint: rack2}, {nnodes: 1, constraint: rack1}]")
    assert done.ended() == "COMPLETED 0:0 Restarts=0"
    port = 20000 + int(done.id) % 20000
    for task, node in enumerate(("127.0.0.12", "127.0.0.11")):
        assert f"node {node} is {task} of 2, meets at 127.0.0.12:{port}\n" in done.text()


def test_where_sbatch_exports_nothing_the_nodes_still_have_a_path(job: Submit) -> None:
    """The shell of a node looks for programs on PATH, so the log shows what it was."""
    done = job("bare", "exit 0", "--export=NONE", nnodes=1)
    assert done.ended() == "FAILED 1:0 Restarts=0"
    assert "launch.sh: torchrun is not on PATH" in done.text()


def test_a_secret_of_the_environment_is_in_no_log_and_in_no_list(job: Submit, cluster) -> None:
    secret = "planted-7f3a9c"
    done = job("secret", WAITS, PLANTED_TOKEN=secret)
    done.says("is 1 of 2")
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert any(b"launch.sh" in line for line in lines)
    assert not any(secret.encode() in line for line in lines)
    assert secret not in cluster.run("scontrol", "show", "job", done.id)
    cluster.run("scancel", done.id)
    done.ended()
    assert not [path for path in done.log.parent.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
