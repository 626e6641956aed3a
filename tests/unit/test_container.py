"""What is mounted, and how an image is spelled for each engine."""

from dataclasses import replace

import pytest

from sftc.compiler.compile import Checked
from sftc.compiler.container import Container, container, covers, mounted
from sftc.compiler.plan import FromRecipe, Resolved
from sftc.compiler.schemas import leaves

DIGEST = "sha256:" + "0123456789abcdef" * 4
MODEL = "preset: llama-2-7b"


def made(check, engine: str, image: str, *lines: str, more: str = "") -> Checked:
    inner = [f"engine: {engine}", f"image: {image}", *lines]
    launcher = "  launcher: slurm\n" if engine == "pyxis" else ""
    tail = launcher + "  container:\n" + "".join(f"    {line}\n" for line in inner)
    return check(MODEL, more=tail + more)


def started(checked: Checked) -> Container:
    assert checked.plan is not None, checked.diagnostics
    found = container(checked.plan)
    assert found is not None
    return found


def test_without_the_section_there_is_none(check) -> None:
    assert container(check(MODEL).plan) is None


@pytest.mark.parametrize(
    ("engine", "image", "word"),
    [
        ("docker", f"sftc@{DIGEST}", f"sftc@{DIGEST}"),
        ("docker", f"localhost/team/sftc:1.0@{DIGEST}", f"localhost/team/sftc@{DIGEST}"),
        ("podman", f"sftc@{DIGEST}", f"docker.io/library/sftc@{DIGEST}"),
        ("podman", f"team/sftc@{DIGEST}", f"docker.io/team/sftc@{DIGEST}"),
        ("podman", f"example.com/sftc:1.0@{DIGEST}", f"example.com/sftc@{DIGEST}"),
        ("apptainer", f"docker://example.com:5000/sftc:1.0@{DIGEST}", f"docker://example.com:5000/sftc@{DIGEST}"),
        ("singularity", f"oras://example.com/sftc@{DIGEST}", f"oras://example.com/sftc@{DIGEST}"),
        ("pyxis", f"example.com/a/sftc:1@{DIGEST}", f"--container-image='example.com#a/sftc:{DIGEST}'"),
        ("pyxis", f"example.com#a/sftc@{DIGEST}", f"--container-image='example.com#a/sftc:{DIGEST}'"),
        ("pyxis", f"team/sftc@{DIGEST}", f"--container-image=team/sftc:{DIGEST}"),
    ],
)
def test_an_image_is_spelled_as_its_engine_wants_it(check, engine: str, image: str, word: str) -> None:
    assert word in [line.word for line in started(made(check, engine, f'"{image}"')).options]


@pytest.mark.parametrize(
    ("engine", "image", "codes"),
    [
        ("docker", "sftc", ["SFTC475"]),
        ("docker", "sftc:1.0", ["SFTC475"]),
        ("docker", "sftc@sha256:0123", ["SFTC475"]),
        ("docker", f"Sftc@{DIGEST}", ["SFTC475"]),
        ("docker", "./sftc.sif", ["SFTC478"]),
        ("podman", f"docker://sftc@{DIGEST}", ["SFTC478"]),
        ("apptainer", "docker://sftc:1.0", ["SFTC475"]),
        ("apptainer", "library://team/sftc:1.0", ["SFTC475"]),
        ("apptainer", "sftc:1.0", ["SFTC478"]),
        ("apptainer", f"sftc@{DIGEST}", ["SFTC478"]),
        ("singularity", "sftc.sif", ["SFTC475"]),
        ("pyxis", "sftc.sqsh", ["SFTC475"]),
        ("pyxis", "example.com#sftc:1.0", ["SFTC475"]),
    ],
)
def test_other_images_are_refused(check, engine: str, image: str, codes: list[str]) -> None:
    assert [one.code for one in made(check, engine, f'"{image}"').diagnostics] == codes


def test_every_run_time_path_of_a_recipe_is_mounted(check) -> None:
    plan = check(MODEL).plan
    assert plan is not None
    named = [key for key, schema in leaves() if schema.get("format") == "run-time-path"]
    stated = {key: Resolved(value=f"/{number}", origin=FromRecipe()) for number, key in enumerate(named)}
    reads, writes = mounted(replace(plan, values={**plan.values, **stated}))
    assert sorted(key for one in (*reads, *writes) for key in one.keys) == sorted(named)
    assert {key for one in writes for key in one.keys} == {
        *("checkpoint.save", "data.store_path", "logging.run_path", "logging.tensorboard_dir")
    }


def test_a_path_in_another_one_comes_with_it(check) -> None:
    more = (
        "checkpoint:\n  save: runs/short/checkpoints\n"
        "logging:\n  run_path: ./runs//short/\n  tensorboard_dir: /boards\n"
    )
    checked = made(check, "docker", f"sftc@{DIGEST}", more=more)
    assert checked.plan is not None, checked.diagnostics
    reads, writes = mounted(checked.plan)
    assert {one.path: one.keys for one in writes} == {
        "runs/short": ("logging.run_path", "checkpoint.save"),
        "/boards": ("logging.tensorboard_dir",),
        ".sftc/store": ("data.store_path",),
    }
    assert [one.path for one in reads] == ["tokenizer", "train.jsonl"]


def test_what_is_read_below_what_is_written_is_mounted_once(check) -> None:
    checked = made(check, "docker", f"sftc@{DIGEST}", more="logging:\n  run_path: .\n")
    assert checked.plan is not None, checked.diagnostics
    reads, writes = mounted(checked.plan)
    assert (reads, [one.path for one in writes]) == ([], ["."])


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("sqlite:///tracking/mlflow.db", "tracking"),
        ("sqlite+pysqlite:////srv/tracking/mlflow.db?timeout=60", "/srv/tracking"),
        ("sqlite:///mlflow.db", "."),
        ("./tracking", "tracking"),
        ("/srv/my%20tracking", "/srv/my tracking"),
        ("file:tracking", "tracking"),
        ("file:///srv/tracking", "/srv/tracking"),
        ("file://localhost/srv/tracking", "/srv/tracking"),
        ("sqlite:///:memory:", None),
        ("sqlite://", None),
        ("https://mlflow.example.org/tracking", None),
        ("postgresql://mlflow.example.org/tracking", None),
        ("databricks", None),
    ],
)
def test_the_directory_of_a_local_mlflow_is_written(check, uri: str, folder: str | None) -> None:
    def written(more: str) -> dict[str, tuple[str, ...]]:
        checked = made(check, "docker", f"sftc@{DIGEST}", more=more)
        assert checked.plan is not None, checked.diagnostics
        return {one.path: one.keys for one in mounted(checked.plan)[1]}

    found = written(f'logging:\n  mlflow: {{experiment: mine, tracking_uri: "{uri}"}}\n')
    if folder == ".":  # which holds all the others
        assert "logging.mlflow.tracking_uri" in found.pop(".")
        assert not found
    else:
        stated = {} if folder is None else {folder: ("logging.mlflow.tracking_uri",)}
        assert found == written("") | stated


@pytest.mark.parametrize(
    ("outer", "inner", "does"),
    [
        ("data", "data", True),
        ("data", "data/train", True),
        ("data", "data-2", False),
        (".", "data", True),
        (".", "../data", False),
        ("/", "/data", True),
        ("/data", "data", False),
        ("data", "/data", False),
    ],
)
def test_one_path_covers_another(outer: str, inner: str, does: bool) -> None:
    assert covers(outer, inner) == does


def test_a_home_is_named_inside_only(check) -> None:
    checked = made(check, "docker", f"sftc@{DIGEST}")
    assert checked.plan is not None
    assert {one.name: one.value for one in checked.plan.environment}["HOME"] == "/tmp"
    assert "HOME" not in [one.name for one in check(MODEL).plan.environment]


def test_names_of_a_tracker_and_of_the_hub_go_in_where_the_recipe_needs_them(check) -> None:
    assert not {"WANDB_API_KEY", "HF_TOKEN"} & set(started(made(check, "docker", f"sftc@{DIGEST}")).passed)
    more = "logging:\n  wandb: {project: mine}\n"
    assert "WANDB_API_KEY" in started(made(check, "docker", f"sftc@{DIGEST}", more=more)).passed


def test_a_mount_that_starts_with_a_tilde_is_warned_of(check) -> None:
    checked = made(check, "docker", f"sftc@{DIGEST}", 'mounts: ["~/cache:/cache"]')
    assert [one.code for one in checked.diagnostics] == ["SFTC454"]
