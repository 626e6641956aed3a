"""What launch.sbatch asks for, and what it may not ask for."""

import pytest

from sftc.compiler.slurm import directives

SHAPE = (
    "num_layers: 2",
    "hidden_size: 64",
    "ffn_hidden_size: 128",
    "num_attention_heads: 4",
    "vocab_size: 512",
    "max_position_embeddings: 1024",
)


def slurm(check, *lines: str, nnodes: int = 1):
    head = f"  nnodes: {nnodes}\n  launcher: slurm\n  stop_seconds: 1\n  slurm:\n"
    split = f"parallel:\n  tensor_model_parallel_size: {nnodes}\n"
    return check(*SHAPE, more=head + "".join(f"    {line}\n" for line in lines) + split)


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("2", 120), ("2:30", 150), ("1:00:00", 3600), ("0-1", 3600), ("0-2:03", 7380), ("0-0:00:45", 45)],
)
def test_time_limits_are_read_as_sbatch_reads_them(check, time: str, seconds: int) -> None:
    for notice in (seconds, seconds - 1):
        checked = slurm(check, f'time: "{time}"', f"signal_seconds: {notice}")
        assert [one.code for one in checked.diagnostics] == ["SFTC473"] * (notice == seconds)


def test_gpus_are_asked_for_as_the_cluster_spells_it(check) -> None:
    def asked(*lines: str) -> list[str]:
        plan = slurm(check, "max_requeues: 0", *lines).plan
        return [word for word in directives(plan) if word.startswith(("--g", "--no-r", "--r"))]

    assert asked() == ["--gpus-per-node=8", "--no-requeue"]
    assert asked("gpu_option: gres", "gpu_type: h100") == ["--gres=gpu:h100:8", "--no-requeue"]
    assert asked("gpu_option: none") == ["--no-requeue"]


def test_what_a_group_says_holds_for_its_nodes_alone(check) -> None:
    checked = slurm(check, "partition: gpu", "groups: [{nnodes: 1}, {nnodes: 1, partition: spare}]", nnodes=2)
    assert checked.plan is not None, checked.diagnostics
    words = directives(checked.plan)
    cut = words.index("hetjob")
    assert [word for word in words[:cut] if "nodes=" in word or "partition" in word] == ["--nodes=1", "--partition=gpu"]
    assert words[cut + 1 :] == ["--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=8", "--partition=spare"]


@pytest.mark.parametrize("dependency", ["singleton", "afterok:12:13", "afterany:7_1,singleton", "after:12+5"])
def test_dependencies_are_spelled_as_sbatch_spells_them(check, dependency: str) -> None:
    assert f"--dependency={dependency}" in directives(slurm(check, f'dependency: "{dependency}"').plan)


@pytest.mark.parametrize("dependency", ["12", "afterok", "afterok:x", "afterok:1;rm"])
def test_other_dependencies_are_refused(check, dependency: str) -> None:
    assert slurm(check, f'dependency: "{dependency}"').plan is None
