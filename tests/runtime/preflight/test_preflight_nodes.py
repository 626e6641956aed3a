"""Several nodes, each a process of this machine with a directory of its own or a shared one: what is between them."""

import json
import signal
import socket
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from preflight_nodes import Compile, Nodes, ended, found, left, new_root

pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")


@pytest.fixture
def pair(compiled: Compile) -> Path:
    """A build dir for two nodes."""
    return compiled(launch__nnodes=2)


def test_two_nodes_that_are_fine_say_one_line_once(pair: Path, root: Path, nodes: Nodes) -> None:
    first, second = (nodes.start(pair, root, number) for number in (0, 1))
    status, out, err = ended(first)
    assert (status, out) == (0, "")
    assert err.startswith("preflight: 2 nodes, 14 checks, all fine (")
    assert err.count("\n") == 1
    assert ended(second) == (0, "", "")
    assert left(root) == []


def test_the_port_is_free_for_torchrun_afterwards(pair: Path, root: Path, nodes: Nodes) -> None:
    """Which listens there as its store does, with an address that may be used again."""
    started = [nodes.start(pair, root, number) for number in (0, 1)]
    assert [ended(one)[0] for one in started] == [0, 0]
    with socket.create_server(("", nodes.port)):
        pass


def test_nodes_that_know_no_number_get_one(pair: Path, root: Path, nodes: Nodes) -> None:
    started = [nodes.start(pair, root, json=True) for _ in range(2)]
    (status, out, _), (other, _, _) = sorted(map(ended, started), key=lambda one: -len(one[1]))
    assert (status, other) == (0, 0)
    assert [node["node"] for node in json.loads(out)["nodes"]] == [0, 1]
    assert json.loads(out)["status"] == "ok"


def test_equal_numbers_are_warned_of(pair: Path, root: Path, nodes: Nodes) -> None:
    started = [nodes.start(pair, root, 0, json=True) for _ in range(2)]
    _, out, _ = max(map(ended, started), key=lambda one: len(one[1]))
    assert {result for node in found(out, "nodes").values() for result, _ in node} == {"warning"}
    assert "NODE_RANK is 0" in found(out, "nodes")[1][0][1]


def test_a_directory_that_is_not_shared_is_named(
    pair: Path, root: Path, tmp_path: Path, repo_root: Path, nodes: Nodes
) -> None:
    other = new_root(tmp_path / "other", repo_root)
    first, second = nodes.start(pair, root, 0, json=True), nodes.start(pair, other, 1)
    status, out, _ = ended(first)
    assert status == 1
    assert found(out, "shared")[0] == []
    ((result, text),) = found(out, "shared")[1]
    assert result == "failed"
    assert text.startswith("`checkpoint.save`: `runs/quickstart/checkpoints` (in ")
    assert text.endswith("other`) is not the directory that the first node writes to")
    status, _, err = ended(second)
    assert status == 1
    assert err.startswith("preflight: failed; the first node, ")
    assert left(tmp_path) == []


def test_other_versions_are_named_and_nothing_is_reduced(pair: Path, root: Path, nodes: Nodes) -> None:
    second = nodes.start(pair, root, 1, packages={"torch": "2.6.0"}, python="3.12.99")
    first = nodes.start(pair, root, 0, json=True)
    status, out, _ = ended(first)
    assert status == 1
    told = found(out, "versions")[1]
    assert [result for result, _ in told] == ["ok", "warning", "failed"]  # the patch release of Python, and torch
    assert told[2][1].startswith("torch 2.6.0, and ")
    assert " on node 0 (" in told[2][1]
    assert {node: results[0][0] for node, results in found(out, "all-reduce").items()} == dict.fromkeys(
        (0, 1), "skipped"
    )
    assert ended(second)[0] == 1


def test_another_build_is_named(pair: Path, compiled: Compile, root: Path, nodes: Nodes) -> None:
    other = compiled("other", launch__nnodes=2, train__lr=0.5)
    started = [nodes.start(pair, root, 0, json=True), nodes.start(other, root, 1)]
    status, out, _ = ended(started[0])
    assert status == 1
    assert [result for result, _ in found(out, "build")[1]] == ["ok", "failed"]


def test_a_node_that_does_not_come_is_named_after_its_time(compiled: Compile, root: Path, nodes: Nodes) -> None:
    build = compiled(launch__nnodes=3)
    began = time.monotonic()
    wait = "SFTC_PREFLIGHT_WAIT=15"
    started = [nodes.start(build, root, number, stated=wait, json=number == 0) for number in (0, 2)]
    (status, out, err), (other, _, _) = map(ended, started)
    assert (status, other) == (1, 1)
    assert time.monotonic() - began < 60
    assert err == "preflight: 1 node has not come yet, waiting up to 15 s (SFTC_PREFLIGHT_WAIT)\n"
    assert found(out, "nodes")[1] == [("failed", "did not come within 15 s")]
    assert found(out, "all-reduce")[2] == [("skipped", "not all nodes are there")]


def test_without_the_first_node_the_others_say_so(pair: Path, root: Path, nodes: Nodes) -> None:
    """The port of an address that is not this machine's, so that nobody here takes its place."""
    alone = nodes.start(pair, root, 1, stated="MASTER_ADDR=192.0.2.1 SFTC_PREFLIGHT_WAIT=3")
    status, out, err = ended(alone)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: preflight: the first node, 192.0.2.1:{nodes.port}, cannot be reached within 3 s: ")
    assert err.splitlines()[1].startswith("help: is launch.sh running there")
    assert left(root) == []


def test_a_port_that_is_taken_is_named(pair: Path, root: Path, nodes: Nodes) -> None:
    with socket.create_server(("", nodes.port)):
        status, _, err = ended(nodes.start(pair, root, 0))
    assert status == 1
    assert err.splitlines()[0] == f"error: preflight: port {nodes.port} of this node is in use by another program"


def test_strangers_at_the_port_disturb_nobody(pair: Path, root: Path, nodes: Nodes) -> None:
    """Who says nothing, who speaks something else, and a node of another run."""
    first = nodes.start(pair, root, 0)
    strangers = [_connected(nodes.port) for _ in range(3)]
    strangers[1].sendall(b"GET / HTTP/1.1\r\n\r\n")
    strangers[2].sendall(b'{"run": "quickstart-12-0", "number": 1, "host": "x", "findings": [], "facts": {}}\n')
    assert b'"refused": "quickstart"' in strangers[2].recv(1000)
    second = nodes.start(pair, root, 1)
    assert [ended(one)[0] for one in (first, second)] == [0, 0]
    for stranger in strangers:
        stranger.close()


def _connected(port: int) -> socket.socket:
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_node_that_was_stopped_may_come_again(compiled: Compile, root: Path, nodes: Nodes) -> None:
    build = compiled(launch__nnodes=3)
    first, early = nodes.start(build, root, 0), nodes.start(build, root, 1)
    _until_connected(nodes.port, 1)
    early.send_signal(signal.SIGTERM)
    assert ended(early)[0] == 128 + signal.SIGTERM
    others = [nodes.start(build, root, number) for number in (1, 2)]
    assert [ended(one)[0] for one in (first, *others)] == [0, 0, 0]
    assert left(root) == []


def _until_connected(port: int, count: int) -> None:
    """Until so many connections to `port` are established, by proc(5): the fourth field is 01 then."""
    deadline = time.monotonic() + 60
    while True:
        lines = [line.split() for path in ("tcp", "tcp6") for line in Path("/proc/net", path).read_text().splitlines()]
        if sum(words[1].endswith(f":{port:04X}") and words[3] == "01" for words in lines) >= count:
            return
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(("skew", "result"), [(-4.0, "warning"), (30.0, "failed")])
def test_clocks_that_differ_are_named(pair: Path, root: Path, nodes: Nodes, skew: float, result: str) -> None:
    started = [nodes.start(pair, root, 0, json=True), nodes.start(pair, root, 1, clock=skew)]
    (status, out, _), (other, _, _) = map(ended, started)
    assert (status, other) == ((1, 1) if result == "failed" else (0, 0))
    ((told, text),) = found(out, "clock")[1]
    assert told == result
    assert text.startswith("4.0 s behind the first node's" if skew < 0 else "30.0 s ahead of the first node's")


def test_a_rank_that_stands_still_is_told_from_those_that_wait(pair: Path, root: Path, nodes: Nodes) -> None:
    started = [
        nodes.start(pair, root, 0, json=True, REDUCING=12),
        nodes.start(pair, root, 1, REDUCING=12, signal="SIGSTOP"),
    ]
    (status, out, _), (other, _, _) = map(ended, started)
    assert (status, other) == (1, 1)
    ((result, text),) = found(out, "all-reduce")[1]
    assert (result, text) == ("failed", "the process stands still, it gives no sign of life (gloo)")
    ((result, text),) = found(out, "all-reduce")[0]
    assert result == "skipped"
    assert "in vain" in text


def test_a_rank_that_is_killed_is_named(pair: Path, root: Path, nodes: Nodes) -> None:
    started = [
        nodes.start(pair, root, 0, json=True, REDUCING=12),
        nodes.start(pair, root, 1, REDUCING=12, signal="SIGKILL"),
    ]
    status, out, _ = ended(started[0])
    assert status == 1
    ((result, text),) = found(out, "all-reduce")[1]
    assert (result, text) == ("failed", "the process ended with status -9 (gloo)")
    assert found(out, "all-reduce")[0][0][0] == "skipped"


def test_a_network_interface_that_is_not_there_is_named(compiled: Compile, root: Path, nodes: Nodes) -> None:
    """`launch.environment` counts, also where a person asks and launch.sh has exported nothing."""
    build = compiled(launch__nnodes=2, launch__environment={"GLOO_SOCKET_IFNAME": "absent0"})
    started = [nodes.start(build, root, number, json=True, REDUCING=12) for number in (0, 1)]
    status, out, _ = ended(started[0])
    assert (status, ended(started[1])[0]) == (1, 1)
    for node in (0, 1):
        ((result, text),) = found(out, "all-reduce")[node]
        assert result == "failed"
        assert "absent0" in text


def test_a_node_that_is_frozen_is_named(pair: Path, root: Path, nodes: Nodes) -> None:
    """The whole node, from the moment in which it has come."""
    first, second = nodes.start(pair, root, 0, json=True), nodes.start(pair, root, 1, freeze=True)
    status, out, _ = ended(first)
    assert status == 1
    assert found(out, "clock")[1] == [("failed", "the node does not answer any more")]
    assert second.poll() is None


def test_64_nodes_meet(compiled: Compile, root: Path, nodes: Nodes) -> None:
    """Without the all-reduce, whose 64 processes would load torch here."""
    build = compiled(launch__nnodes=64, train__micro_batch_size=1, train__global_batch_size=64)
    first, *others = (nodes.start(build, root, number, reduces=True, json=number == 0) for number in range(64))
    status, out, _ = ended(first)
    assert (status, [ended(one)[0] for one in others]) == (0, [0] * 63)
    for check in ("nodes", "port", "versions", "paths", "shared", "clock", "all-reduce"):
        assert {node: results[0][0] for node, results in found(out, check).items()} == dict.fromkeys(range(64), "ok")
    assert left(root) == []
    print(f"64 nodes met, looked and were asked for the time in {json.loads(out)['seconds']} s")
