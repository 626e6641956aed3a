"""launch.sh outside and inside of a container. The engines are fakes: see fake_engine.py."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import fake_engine
import pytest
from container_places import DIGEST, IMAGES, Place, compiled
from fake_engine import ENGINES, Mount
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftc.compiler.compile import artifacts, check_recipe

DAEMONS = ("docker", "podman")
SECRETS = {"HF_TOKEN": "planted-1", "TEAM_KEY": "planted 2\n$HOME,"}
# Reads, then writes, of the golden case slurm-3d, and where MLflow writes: names that try to break out.
READS = ("tokenizers/it's $HOME", "data/$(touch pwned).jsonl", "checkpoints/base model")
WRITES = ("runs/slurm-3d", "-runs/*; rm", ".sftc/store", "it's $(touch pwned)")


@pytest.fixture
def made(tmp_path: Path, repo_root: Path):
    """`made("docker", "launch.container.privileged=true")`."""
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    fake_engine.install(fakes)

    def make(engine: str, *stated: str) -> Place:
        base = tmp_path / 'a, "b":\n$(touch pwned) \'c'
        root = base / "root"
        for name in (*READS, "more files"):
            (root / name).mkdir(parents=True)
        stated = (
            f"launch.container.engine={engine}",
            f"launch.container.image={IMAGES.get(engine)}",
            f"launch.secrets={json.dumps(list(SECRETS))}",
            "megatron.path=more files",
            "launch.container.mounts=['/usr/share:/cache', 'more files/x:/x y:ro']",
            f'logging.mlflow={{experiment: mine, tracking_uri: "sqlite:///{WRITES[-1]}/mlflow.db"}}',
            *stated,
        )
        build = compiled(repo_root / "tests/golden/cases/slurm-3d.yaml", base / "build", *stated)
        variables = {
            "PATH": f"{fakes}:/usr/bin:/bin",
            "RECORD": str(tmp_path / "record"),
            "MASTER_ADDR": "first-node",
            **SECRETS,
        }
        return Place(build=build, root=root, variables=variables)

    return make


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_mounted_is_what_the_plan_names(made, engine, tmp_path) -> None:
    place = made(engine)
    done = place.launch()
    assert (done.returncode, done.stderr) == (0, f"this is a fake {engine}\n")

    def here(path: str, is_read_only: bool) -> Mount:
        return Mount(source=f"{place.root}/{path}", target=f"{place.root}/{path}", is_read_only=is_read_only)

    request = place.request()
    assert request.mounts == [
        Mount(source=str(place.build), target=str(place.build), is_read_only=True),
        *(here(path, True) for path in (*READS, "more files")),
        *(here(path, False) for path in WRITES),
        Mount(source="/usr/share", target="/cache", is_read_only=False),
        Mount(source=f"{place.root}/more files/x", target="/x y", is_read_only=True),
    ]
    assert all((place.root / path).is_dir() for path in WRITES)
    assert request.image == IMAGES[engine]
    assert request.command[-1] == f"{place.build}/launch.sh"
    assert request.options["workdir" if engine in DAEMONS else "pwd"] == [str(place.root)]
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize("engine", ENGINES)
def test_secrets_go_in_by_name(made, engine) -> None:
    place = made(engine)
    dry, done = place.launch("--dry-run"), place.launch()
    assert "planted" not in dry.stdout + dry.stderr + done.stdout + done.stderr + "".join(place.recorded())
    prefix = fake_engine.PREFIXES.get(engine, "")
    seen = place.environment()
    for name, value in SECRETS.items():
        assert seen[f"{prefix}{name}"] == value
        assert prefix or name in place.request().names
    assert seen[f"{prefix}MASTER_ADDR"] == "first-node"
    assert f"{prefix}MASTER_PORT" not in seen


@pytest.mark.parametrize("engine", ENGINES)
def test_the_dry_run_can_be_pasted_back(made, engine) -> None:
    place = made(engine)
    dry = place.launch("--dry-run")
    assert (dry.returncode, dry.stderr, place.recorded()) == (0, "", [])
    assert not (place.root / WRITES[0]).exists()
    subprocess.run(["bash", "-eu", "-c", dry.stdout], cwd="/", env=place.variables, check=True, capture_output=True)
    pasted, environment = place.recorded(), place.environment()
    place.launch()
    assert place.recorded() == pasted
    differ = {name for name, _ in environment.items() ^ place.environment().items()}
    assert differ <= {"_", "PWD", "OLDPWD", "SHLVL"}


@pytest.mark.parametrize("engine", DAEMONS)
def test_nothing_is_privileged_unless_the_recipe_says_so(made, engine) -> None:
    place = made(engine)
    place.launch()
    assert "--privileged" not in place.recorded()


@pytest.mark.parametrize("engine", DAEMONS)
def test_a_privileged_container_is_asked_for(made, engine) -> None:
    place = made(engine, "launch.container.privileged=true")
    place.launch()
    assert "--privileged" in place.recorded()


NVIDIA = {
    "docker": {"gpus": ["all"], "ulimit": ["memlock=-1"]},
    "podman": {"device": ["nvidia.com/gpu=all"], "ulimit": ["host"]},
    "apptainer": {"nv": [""]},
    "singularity": {"nv": [""]},
}
AMD = {
    "docker": {"device": ["/dev/kfd", "/dev/dri"], "ulimit": ["memlock=-1"]},
    "podman": {"device": ["/dev/kfd", "/dev/dri"], "ulimit": ["host"]},
    "apptainer": {"rocm": [""]},
    "singularity": {"rocm": [""]},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("stated", "wanted"),
    [
        ("launch.hardware=H100", NVIDIA),
        ("launch.hardware=null", NVIDIA),
        ("launch.hardware=MI300X", AMD),
        ("launch.device=cpu", {}),
    ],
)
def test_devices_follow_from_the_named_hardware(made, engine, stated, wanted) -> None:
    place = made(engine, stated)
    place.launch()
    options = place.request().options
    found = {name: options[name] for name in ("gpus", "device", "ulimit", "nv", "rocm") if name in options}
    if infiniband := [one for one in found.get("device", []) if one == "/dev/infiniband"]:
        found["device"].remove(*infiniband)
    assert {name: values for name, values in found.items() if values} == wanted.get(engine, {})


@pytest.mark.parametrize("engine", DAEMONS)
def test_a_daemons_container_has_the_callers_user_and_the_runs_time_to_stop(made, engine) -> None:
    place = made(engine, "launch.stop_seconds=60")
    place.launch()
    options = place.request().options
    assert options["stop-timeout"] == ["70"]
    assert {"init", "rm"} <= set(options)
    assert options["ipc"] == options["network"] == options["uts"] == ["host"]
    if engine == "docker":
        assert options["user"] == [f"{os.getuid()}:{os.getgid()}"]
        assert set(options["group-add"]) == {str(group) for group in (os.getgid(), *os.getgroups())}
    else:
        assert (options["userns"], options["group-add"]) == (["keep-id"], ["keep-groups"])


def test_what_is_to_be_read_has_to_be_there(made) -> None:
    place = made("docker")
    (place.root / READS[1]).rmdir()
    done = place.launch()
    assert done.returncode == 1
    assert done.stderr == f"launch.sh: {place.root}/{READS[1]} does not exist, and the container is to read it\n"
    assert (place.recorded(), (place.root / WRITES[0]).exists()) == ([], False)


def test_an_image_file_is_held_to_its_digest(made) -> None:
    place = made("apptainer", "launch.container.image=images/a b.sif", f"launch.container.image_sha256={DIGEST}")
    image = place.root / "images/a b.sif"
    image.parent.mkdir()
    image.write_bytes(b"another image")
    done = place.launch()
    assert done.returncode == 1
    assert done.stderr == f"launch.sh: {image} is not what launch.container.image_sha256 says\n"
    assert place.recorded() == []
    image.write_bytes(b"image")
    assert place.launch().returncode == 0
    assert place.request().image == str(image)


def test_an_edited_build_dir_starts_no_container(made) -> None:
    place = made("podman")
    (place.build / "megatron.args").write_text("--edited\n")
    done = place.launch()
    assert (done.returncode, place.recorded()) == (3, [])


def test_options_are_handed_on_to_the_inside(made) -> None:
    place = made("docker")
    place.launch("--some-option", "two words")
    assert place.recorded()[-3:] == [f"{place.build}/launch.sh", "--some-option", "two words"]


HOSTILE = st.lists(
    st.sampled_from(
        ["$(touch pwned)", "`touch pwned`", "; touch pwned", "${HOME}", "'", '"', '""', "\\", "!", "*", ","]
    )
    | st.sampled_from([":", "-x", "#", "&&", "|", ">", "~", "{a,b}", "[a]", "?", "%s", "\\n", " ", "=", "ro", "=rw,"])
    | st.text(alphabet=st.characters(exclude_categories=["C", "Z"], exclude_characters="/."), max_size=4),
    min_size=1,
    max_size=5,
).map("".join)
PLACES = ("tokenizer.path", "data.train_data_path", "model.load", "checkpoint.save", "logging.run_path")


@settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(engine=st.sampled_from(ENGINES), values=st.fixed_dictionaries(dict.fromkeys(PLACES, HOSTILE)), folder=HOSTILE)
def test_random_paths_are_mounted_as_they_are(tmp_path, repo_root, engine, values, folder) -> None:
    """Through the dry run, bash and CSV, in directories of any name."""
    base = Path(tempfile.mkdtemp(dir=tmp_path))
    root = base / f"root {folder}"
    root.mkdir()
    fakes = base / "fakes"
    fakes.mkdir()
    fake_engine.install(fakes)
    stated = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    image = [f"launch.container.engine={engine}", f"launch.container.image={IMAGES[engine]}"]
    checked = check_recipe(repo_root / "tests/golden/cases/slurm-3d.yaml", "r.yaml", [*image, *stated])
    if checked.plan is None:
        refused = {str(one.pointer).removeprefix("/").replace("/", ".") for one in checked.diagnostics}
        assert refused & set(PLACES), checked.diagnostics
        return
    build = base / f"build {folder}"
    build.mkdir()
    for artifact in artifacts(checked):
        (build / artifact.path).write_bytes(artifact.content)
    variables = {"PATH": f"{fakes}:/usr/bin:/bin", "RECORD": str(base / "record")}
    place = Place(build=build, root=root, variables=variables)
    shown = place.launch("--dry-run").stdout
    subprocess.run(["bash", "-eu", "-c", shown], cwd="/", env=variables, check=True, capture_output=True)
    found = place.request().mounts
    assert all(one.source == one.target for one in found)
    named = [str(build), "/opt/Megatron-LM", *(f"{root}/{value.removeprefix('hf:')}" for value in values.values())]
    assert {one.source for one in found} - {f"{root}/.sftc/store"} <= set(named)
    # What is missing lies in another one.
    covered = [one.source for one in found]
    assert all(any(f"{name}/".startswith(f"{outer}/") for outer in covered) for name in named)
    assert place.request().options["workdir" if engine in DAEMONS else "pwd"] == [str(root)]
    assert not list(base.rglob("pwned"))


def test_without_the_engine_there_is_one_sentence(made) -> None:
    place = made("podman")
    done = place.launch(PATH="/usr/bin:/bin")
    assert (done.returncode, done.stderr) == (1, "launch.sh: podman is not on PATH (launch.container.engine)\n")


def test_pyxis_is_started_through_sbatch(tmp_path, repo_root) -> None:
    build = compiled(repo_root / "tests/golden/cases/pyxis.yaml", tmp_path / "build")
    variables = {"PATH": "/usr/bin:/bin", "HF_TOKEN": "planted", "MASTER_ADDR": "first-node"}
    done = subprocess.run(["bash", build / "launch.sh"], env=variables, capture_output=True, text=True)
    assert done.stderr == "launch.sh: pyxis starts the container: submit launch.sbatch\n"
    assert done.returncode == 1


def test_where_every_path_is_absolute_no_other_directory_is_needed(tmp_path, repo_root) -> None:
    build = compiled(repo_root / "tests/golden/cases/apptainer.yaml", tmp_path / "build")
    variables = {"PATH": "/usr/bin:/bin", "HF_TOKEN": "planted"}
    words = ["bash", build / "launch.sh", "--dry-run"]
    shown = subprocess.run(words, cwd="/usr", env=variables, capture_output=True, text=True, check=True).stdout
    assert f"--pwd={build}" in shown
    assert "source=/usr" not in shown


def test_dockers_own_client_reads_these_words(made) -> None:
    """The real client parses before it looks for a daemon, and here there is none."""
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("docker is not installed")
    place = made("docker", "launch.container.privileged=true")  # of `--device` it asks the daemon first
    place.launch()
    variables = {"DOCKER_HOST": "unix:///nonexistent", "HOME": str(place.root)}
    done = subprocess.run([docker, *place.recorded()[1:]], env=variables, capture_output=True, text=True, timeout=60)
    assert "unix:///nonexistent" in done.stderr
    assert "invalid" not in done.stderr
    assert "unknown" not in done.stderr
