"""The table at 2 and at 64 nodes, as it looks. --update-golden rewrites the expected files."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from sftc.runtime.preflight.finding import Finding
from sftc.runtime.preflight.nodes import Node, agree
from sftc.runtime.preflight.table import document, span, summary, table

HERE = Path(__file__).parent
FINE = {
    "port": "they meet at gpu-000:24821",
    "build": "as compiled, manifest 1a2b3c4d5e6f",
    "devices": "8 of 8 GPUs: NVIDIA H100 80GB HBM3, 79.6 GiB",
    "data": "4 files readable; prepared as 07a85ab1dab5",
    "weights": "starting from the Hugging Face weights in `models/llama`, at iteration 0, 5 files readable",
    "paths": "`runs/llama/checkpoints` and `runs/llama` written to",
    "all-reduce": "512 GPUs over nccl",
}


def node(number: int, torch: str = "2.7.0", **findings: Finding) -> Node:
    words = {"versions": f"Python 3.12.3, torch {torch}, Megatron-Core 0.19.2, sftc 0.1.0", **FINE}
    words["disk"] = f"4 checkpoints to come of 90.1 GiB; {number + 1}.0 TiB free in `runs`"
    fine = [Finding(check=check, status="ok", text=text) for check, text in words.items()]
    found = {one.check: one for one in fine} | {one.check: one for one in findings.values()}
    return Node(number=number, host=f"gpu-{number:03}", findings=list(found.values()), facts={"torch": torch})


def bad(check: str, text: str, help: str, status: str = "failed") -> Finding:
    return Finding(check=check, status=status, text=text, help=help)  # type: ignore[arg-type]


def cluster() -> list[Node]:
    """64 nodes: some with another torch, one with a broken GPU, one that did not come, full disks that differ."""
    made = []
    for number in range(64):
        more = {}
        if number == 17:
            text = "GPU 3 (NVIDIA H100 80GB HBM3) cannot be used: CUDA error: uncorrectable ECC error encountered"
            more["devices"] = bad("devices", text, "another process may hold it, or it is broken: see `nvidia-smi`")
        if number in range(30, 42):
            text = f"4 checkpoints to come of 90.1 GiB, 360.4 GiB in all; {number}.0 GiB free in `runs`"
            more["disk"] = bad("disk", text, "make room, or keep fewer (`checkpoint.keep`)")
        if number in (40, 50):
            more["clock"] = bad("clock", "2.3 s behind the first node's", "synchronise the clocks", "warning")
        made.append(node(number, "2.6.0" if number in (3, *range(8, 12), 20) else "2.7.0", **more))
    absent = bad("nodes", "did not come within 60 s", "look at its output")
    made[63] = Node(number=63, host="gpu-063", findings=[absent])
    agree(made)
    return made


def pair() -> list[Node]:
    made = [node(0), node(1, "2.6.0")]
    agree(made)
    return made


@pytest.mark.parametrize(("name", "nodes"), [("64-nodes", cluster()), ("2-nodes", pair())], ids=["64", "2"])
def test_the_table_is_the_golden_one(request: pytest.FixtureRequest, name: str, nodes: Sequence[Node]) -> None:
    text = f"{table(nodes)}\n{summary(nodes, 12.34, len(nodes))}\n"
    golden = HERE / f"{name}.txt"
    if request.config.getoption("--update-golden"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_every_node_stands_in_each_check_once() -> None:
    """Whatever is grouped: the nodes of a check add up, failed and fine ones."""
    for check in ("versions", "devices", "disk"):
        lines = iter(table(cluster()).splitlines()[1:])
        counted, current = 0, ""
        for line in lines:
            current = line[:12].strip() or current
            if current == check and not line.strip().startswith("help:"):
                counted += _count(line)
        assert counted == 63, check  # one did not come


def _count(line: str) -> int:
    """Nodes in `0-2, 5` or `3 (gpu-003)`, which stand in the third column."""
    cell = line[12:].split(None, 1)[1].split("  ")[0]
    parts = [part.split(" ")[0].split("-") for part in cell.split(", ")]
    return sum(int(ends[-1]) - int(ends[0]) + 1 for ends in parts)


def test_nodes_are_called_by_their_names_where_they_are_few() -> None:
    every = [node(number) for number in range(64)]
    assert span(every, 64) == "all"
    assert span(every[5:4:-1], 64) == "5 (gpu-005)"
    assert span([*every[:8], every[10]], 64) == "0-7, 10"


def test_only_what_is_not_fine() -> None:
    made = [node(0), node(1, clock=bad("clock", "2.3 s behind", "synchronise", "warning"))]
    assert table(made, whole=False).splitlines() == [
        "check  result   nodes",
        "clock  warning  1 (gpu-001)  2.3 s behind",
        "                             help: synchronise",
    ]
    assert summary(made, 1.0, 2) == "preflight: 2 nodes, 10 checks, clock warned of (1.0 s)"


def test_colours_are_of_the_results_only() -> None:
    plain, coloured = table(pair()), table(pair(), colour=True)
    assert "\033[31mfailed\033[0m" in coloured
    for code in ("\033[31m", "\033[32m", "\033[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == plain


def test_the_document_has_every_finding() -> None:
    made = document(cluster(), 1.23456)
    assert (made["status"], made["seconds"], len(made["nodes"])) == ("failed", 1.235, 64)
    assert made["nodes"][3]["status"] == "failed"
    assert made["nodes"][50]["status"] == "warning"
    assert made["nodes"][63]["checks"][0]["text"] == "did not come within 60 s"
