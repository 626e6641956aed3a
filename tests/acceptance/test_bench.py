"""`make bench-data` measures what it says; how fast this machine is decides no test."""

import json
import subprocess
import sys


def test_the_benchmark_of_data_measures(repo_root, tmp_path):
    script = repo_root / "tests/bench/bench_data.py"
    words = [sys.executable, str(script), "--rows", "300", "--memory-rows", "300", "--repeats", "1"]
    done = subprocess.run([*words, "--json", str(tmp_path / "found.json")], capture_output=True, text=True)
    found = json.loads((tmp_path / "found.json").read_text())["results"]
    assert done.returncode == int(any(result["state"] == "MISSED" for result in found)), done.stderr
    kinds = [result["what"].partition(" ")[0] for result in found]
    assert kinds[-4:-2] == ["packs", "resident"]
    assert all(f"| {result['what']} | " in done.stdout for result in found)
    assert {result["state"] for result in found} <= {"ok", "MISSED", "skipped", ""}
    packs = found[-4]
    assert float(packs["figure"].removesuffix(" s")) > 0
    assert packs["state"] == "ok"
