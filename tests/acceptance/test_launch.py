"""launch.sh in real bash. torchrun and python3 are fakes that write down what they were given: no rank is started."""

import hashlib
import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftc.compiler.compile import artifacts, check_recipe

FAKE = """#!/usr/bin/env bash
printf '%s\\0' "${0##*/}" "$@" >> "$RECORD"
env -0 > "$RECORD.environment"
"""


@pytest.fixture
def fakes(tmp_path: Path) -> dict[str, str]:
    """Variables under which the two programs are fakes; what they are given is appended to the file $RECORD."""
    folder = tmp_path / "fakes"
    folder.mkdir()
    for name in ("torchrun", "python3"):
        (folder / name).write_text(FAKE)
        (folder / name).chmod(stat.S_IRWXU)
    return {"PATH": f"{folder}:/usr/bin:/bin", "RECORD": str(tmp_path / "record"), "MASTER_ADDR": "first-node"}


@pytest.fixture
def hostile(tmp_path: Path, repo_root: Path) -> Path:
    """A build dir of a recipe whose values try to break out, in a directory whose name does too."""
    target = tmp_path / "build $(touch pwned) 'dir'"
    case = repo_root / "tests/golden/cases/slurm-3d.yaml"
    subprocess.run(
        [sys.executable, "-m", "sftc.compiler", "compile", case, "-o", target], check=True, capture_output=True
    )
    return target


def recorded(variables: dict[str, str]) -> list[str]:
    path = Path(variables["RECORD"])
    return path.read_text().split("\0")[:-1] if path.exists() else []


def port_of(name: str) -> int:
    return 20000 + int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) % 20000


def runtime(command: str, build: Path) -> list[str]:
    return ["python3", "-m", "sftc.runtime", command, str(build)]


def launch(build: Path, cwd: Path, variables: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", build / "launch.sh", *options], cwd=cwd, env=variables, capture_output=True, text=True
    )


def test_hostile_values_arrive_as_the_plan_says(hostile, tmp_path, fakes):
    done = launch(hostile, tmp_path, fakes)
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads((hostile / "plan.json").read_text())
    before = [*runtime("prepare", hostile), *runtime("preflight", hostile)]
    meeting = ["--rdzv-endpoint", f"first-node:{port_of(plan['name'])}", "--rdzv-id", plan["name"]]
    watch = [*runtime("watch", hostile), "--"]
    train = [*watch, "torchrun", *plan["torchrun"], *meeting, "-m", "sftc.runtime", "train", str(hostile)]
    assert recorded(fakes) == [*before, *train]
    seen = dict(item.split("=", 1) for item in Path(fakes["RECORD"] + ".environment").read_text().split("\0") if item)
    for variable in plan["environment"]:
        assert seen[variable["name"]] == variable["value"]
    assert seen["GREETING"] == "`id` & 'so' \"on\" ~ # \\"
    assert seen["PYTHONPATH"] == "/opt/Megatron-LM"
    assert not list(tmp_path.rglob("pwned"))


def test_the_dry_run_can_be_pasted_back(hostile, tmp_path, fakes):
    dry = launch(hostile, tmp_path, fakes, "--dry-run")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert recorded(fakes) == []
    subprocess.run(["bash", "-e", "-c", dry.stdout], cwd="/", env=fakes, check=True)
    pasted = recorded(fakes)
    Path(fakes["RECORD"]).unlink()
    launch(hostile, tmp_path, fakes)
    assert pasted == recorded(fakes)


@pytest.mark.parametrize(
    "name", ["forward_step.py", "megatron.args", "plan.json", "manifest.json", "launch.sh", "launch.sbatch"]
)
def test_one_flipped_byte_stops_the_launch_and_is_named(hostile, tmp_path, fakes, name):
    content = bytearray((hostile / name).read_bytes())
    # The last line of each file is where a changed byte does not change what bash does before the check.
    content[-2] ^= 1
    (hostile / name).write_bytes(content)
    done = launch(hostile, tmp_path, fakes)
    assert done.returncode == 3
    assert f"{name}: FAILED" in done.stderr
    assert recorded(fakes) == []


def test_a_missing_file_stops_the_launch_and_is_named(hostile, tmp_path, fakes):
    (hostile / "forward_step.py").unlink()
    done = launch(hostile, tmp_path, fakes)
    assert done.returncode == 3
    assert "forward_step.py" in done.stderr
    assert recorded(fakes) == []


def test_a_failed_preparation_starts_no_rank(hostile, tmp_path, fakes):
    python = tmp_path / "fakes/python3"
    python.write_text("#!/usr/bin/env bash\nexit 1\n")
    assert launch(hostile, tmp_path, fakes).returncode == 1
    assert recorded(fakes) == []


def test_a_failed_preflight_starts_no_rank(hostile, tmp_path, fakes):
    python = tmp_path / "fakes/python3"
    python.write_text("#!/usr/bin/env bash\n[[ $3 != preflight ]] || exit 1\n")
    assert launch(hostile, tmp_path, fakes).returncode == 1
    assert recorded(fakes) == []


def test_without_a_preflight_it_says_so(hostile, tmp_path, fakes):
    done = launch(hostile, tmp_path, fakes, "--no-preflight")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "launch.sh: no preflight, as --no-preflight asks\n"
    assert [word for word in recorded(fakes) if word in ("prepare", "preflight", "watch")] == ["prepare", "watch"]


@pytest.mark.parametrize("words", [("--dry-run", "--no-preflight"), ("--no-preflight", "--dry-run"), ("", "x")])
def test_two_options_are_one_too_many(hostile, tmp_path, fakes, words):
    done = launch(hostile, tmp_path, fakes, *words)
    assert (done.returncode, recorded(fakes)) == (2, [])
    assert done.stderr == "usage: bash launch.sh [--dry-run | --no-preflight]\n"


def test_without_torchrun_there_is_one_sentence(hostile, tmp_path, fakes):
    (tmp_path / "fakes/torchrun").unlink()
    if shutil.which("torchrun", path=fakes["PATH"]):
        pytest.skip("torchrun is installed system-wide here")
    done = launch(hostile, tmp_path, fakes)
    assert done.returncode == 1
    assert done.stderr == (
        "launch.sh: torchrun is not on PATH; activate the environment in which sftc[runtime] is installed\n"
    )


def test_several_nodes_need_a_meeting_point(hostile, tmp_path, fakes):
    del fakes["MASTER_ADDR"]
    done = launch(hostile, tmp_path, fakes)
    assert done.returncode == 1
    assert done.stderr == "launch.sh: MASTER_ADDR is not set; it is the host name of the first node\n"
    assert recorded(fakes) == []
    assert "--rdzv-endpoint MASTER_ADDR:" in launch(hostile, tmp_path, fakes, "--dry-run").stdout


def test_the_nodes_meet_where_torchruns_variables_and_the_job_say(hostile, tmp_path, fakes):
    fakes |= {"NNODES": "2", "NODE_RANK": "1", "MASTER_PORT": "4711", "SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "3"}
    assert launch(hostile, tmp_path, fakes).returncode == 0
    words = recorded(fakes)
    name = json.loads((hostile / "plan.json").read_text())["name"]
    start = words.index("--rdzv-endpoint")
    assert words[start : start + 6] == [
        *("--rdzv-endpoint", "first-node:4711", "--rdzv-id", f"{name}-12-3", "--node-rank", "1")
    ]


def test_the_parts_of_a_heterogeneous_job_meet_under_one_id(hostile, tmp_path, fakes):
    fakes |= {"SLURM_JOB_ID": "13", "SLURM_JOB_ID_HET_GROUP_0": "12"}
    launch(hostile, tmp_path, fakes)
    words = recorded(fakes)
    assert words[words.index("--rdzv-id") + 1].endswith("-12-0")


def test_another_number_of_nodes_than_the_plans_is_refused(hostile, tmp_path, fakes):
    done = launch(hostile, tmp_path, fakes | {"NNODES": "$(touch pwned)"})
    assert done.returncode == 1
    assert done.stderr == "launch.sh: NNODES is $(touch pwned), and the plan has launch.nnodes: 2\n"
    assert recorded(fakes) == []
    assert not list(tmp_path.rglob("pwned"))


@pytest.fixture
def secretive(tmp_path: Path, repo_root: Path) -> Path:
    """A build dir of a recipe that names two secrets, and restarts ranks."""
    case = repo_root / "tests/golden/cases/slurm-3d.yaml"
    stated = ["launch.secrets=[WANDB_API_KEY, HF_TOKEN]", "launch.max_restarts=3"]
    build = tmp_path / "secretive"
    build.mkdir()
    for artifact in artifacts(check_recipe(case, "r.yaml", stated)):
        (build / artifact.path).write_bytes(artifact.content)
    return build


def test_an_unset_secret_is_named_and_nothing_starts(secretive, tmp_path, fakes):
    done = launch(secretive, tmp_path, fakes | {"WANDB_API_KEY": "planted-1"})
    assert done.returncode == 1
    assert done.stderr == "launch.sh: HF_TOKEN is not exported, and launch.secrets names it\n"
    assert recorded(fakes) == []


def test_secrets_are_inherited_and_stand_in_no_word_or_output(secretive, tmp_path, fakes):
    fakes |= {"WANDB_API_KEY": "planted-1", "HF_TOKEN": "planted-2"}
    dry = launch(secretive, tmp_path, fakes, "--dry-run")
    done = launch(secretive, tmp_path, fakes)
    assert (dry.returncode, done.returncode) == (0, 0)
    assert "planted" not in dry.stdout + dry.stderr + done.stdout + done.stderr + "".join(recorded(fakes))
    assert "--max-restarts=3" in recorded(fakes)
    seen = Path(fakes["RECORD"] + ".environment").read_text()
    assert "WANDB_API_KEY=planted-1\0" in seen
    assert "HF_TOKEN=planted-2\0" in seen


def test_a_secret_with_a_value_in_the_recipe_is_refused_without_the_value(repo_root):
    case = repo_root / "tests/golden/cases/slurm-3d.yaml"
    checked = check_recipe(case, "r.yaml", ["launch.secrets=[MINE]", "launch.environment.MINE=planted"])
    (found,) = [one for one in checked.diagnostics if one.code == "SFTC453"]
    assert "`launch.secrets`" in found.message
    assert "planted" not in str(found)


def test_an_unknown_option_is_a_usage_error(hostile, tmp_path, fakes):
    done = launch(hostile, tmp_path, fakes, "--dryrun")
    assert done.returncode == 2
    assert done.stderr == "usage: bash launch.sh [--dry-run | --no-preflight]\n"
    assert recorded(fakes) == []


def test_the_root_is_where_the_user_stands_or_sftc_root(hostile, tmp_path, fakes):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert launch(hostile, elsewhere, fakes, "--dry-run").stdout.splitlines()[0] == f"cd -- {elsewhere}"
    fakes["SFTC_ROOT"] = "/srv/run data"
    assert launch(hostile, elsewhere, fakes, "--dry-run").stdout.splitlines()[0] == "cd -- /srv/run\\ data"


HOSTILE = st.lists(
    st.sampled_from(["$(touch pwned)", "`touch pwned`", "; touch pwned", "${HOME}", "'", '"', "\\", "\\\\", "!", "*"])
    | st.sampled_from(
        ["-x", "--", "#", "&&", "|", ">pwned", "<", "~", "{a,b}", "[a]", "?", "%s", "\\n", " ", "  ", "="]
    )
    | st.text(alphabet=st.characters(exclude_categories=["C", "Z"], include_characters=" "), max_size=4),
    min_size=1,
    max_size=5,
).map("".join)
PLACES = (
    "tokenizer.path",
    "data.train_data_path",
    "model.load",
    "checkpoint.save",
    "logging.run_path",
    "megatron.path",
    "launch.environment.GREETING",
    "launch.environment.OTHER",
    "launch.slurm.account",
)


@settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(values=st.fixed_dictionaries({}, optional=dict.fromkeys(PLACES, HOSTILE)), folder=HOSTILE)
def test_random_strings_arrive_as_the_plan_says(tmp_path, repo_root, fakes, values, folder):
    """Each value that the compiler accepts, in each place at once, in a directory of any name."""
    case = repo_root / "tests/golden/cases/slurm-3d.yaml"
    accepted, checked = dict(values), None
    while checked is None or checked.plan is None:  # some rules speak only when the schema is content
        checked = check_recipe(case, "r.yaml", [f"{key}={json.dumps(value)}" for key, value in accepted.items()])
        refused = {str(item.pointer).removeprefix("/").replace("/", ".") for item in checked.diagnostics}
        assert checked.plan is not None or refused & set(accepted), checked.diagnostics
        accepted = {key: value for key, value in accepted.items() if key not in refused}
    build = tmp_path / f"build {folder}".replace("/", "|")
    build.mkdir(exist_ok=True)
    for artifact in artifacts(checked):
        (build / artifact.path).write_bytes(artifact.content)
    Path(fakes["RECORD"]).unlink(missing_ok=True)
    done = launch(build, tmp_path, fakes)
    assert (done.returncode, done.stderr) == (0, "")
    before = [*runtime("prepare", build), *runtime("preflight", build)]
    name = checked.plan.name
    meeting = ["--rdzv-endpoint", f"first-node:{port_of(name)}", "--rdzv-id", name]
    watch = [*runtime("watch", build), "--"]
    train = [*watch, "torchrun", *checked.plan.torchrun, *meeting, "-m", "sftc.runtime", "train", str(build)]
    assert recorded(fakes) == [*before, *train]
    seen = dict(item.split("=", 1) for item in Path(fakes["RECORD"] + ".environment").read_text().split("\0") if item)
    assert {one.name: seen[one.name] for one in checked.plan.environment} == {
        one.name: one.value for one in checked.plan.environment
    }
    for key, value in accepted.items():
        if key.startswith("launch.environment."):
            assert seen[key.rpartition(".")[2]] == value
    assert not list(tmp_path.rglob("pwned"))
    subprocess.run(["bash", "-n", build / "launch.sbatch"], check=True, env=fakes)
