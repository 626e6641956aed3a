"""How launch.sh starts the container of `launch.container`: image, mounts, devices and options, each with its reason.

Every path is mounted where it lies outside, so that a plan, a log and a run record mean the same on both sides.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from posixpath import dirname, normpath
from urllib.parse import unquote, urlsplit

from .hardware import hardware_table
from .plan import Plan
from .quoting import ShellWord, sh

# One image for ever: registry, path and digest. A tag beside the digest says what it was, and decides nothing.
REFERENCE = re.compile(
    r"(?:(?P<registry>localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+:[0-9]+)[/#])?"
    r"(?P<path>[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]*)?@sha256:(?P<digest>[0-9a-f]{64})"
)
SCHEMES = ("docker://", "oras://")  # of images that apptainer and singularity fetch
DAEMONS = ("docker", "podman")
HPC = ("apptainer", "singularity")
HUB = "hf://"  # rows that lie on no disk
SQLITE = re.compile(r"sqlite(?:\+\w+)?:///(?!:memory:|file:)(?P<path>[^?]+)")
# Read outside the recipe: where the nodes meet, which of them and which job this is, which GPUs are the caller's.
PASSED = (
    *("MASTER_ADDR", "MASTER_PORT", "NNODES", "NODE_RANK", "SFTC_PREFLIGHT_WAIT"),
    *("SLURM_JOB_ID", "SLURM_JOB_ID_HET_GROUP_0", "SLURM_RESTART_COUNT"),
    *("SLURM_PROCID", "SLURM_NTASKS", "SLURMD_NODENAME"),
    *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "USER"),
)
TRACKING_URI = "logging.mlflow.tracking_uri"
TRACKERS = {
    "logging.wandb.project": ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE"),
    "logging.mlflow.experiment": tuple(f"MLFLOW_TRACKING_{name}" for name in ("URI", "USERNAME", "PASSWORD", "TOKEN")),
}
GRACE = 10  # seconds that the supervisor has beyond `launch.stop_seconds`, to say how it ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One word of a command, or one path, and why it is there: prose, or keys of the recipe parted by `, `."""

    word: ShellWord
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """A path of the plan, normalised, and the keys that name it."""

    path: str
    keys: tuple[str, ...]

    @property
    def is_absolute(self) -> bool:
        return self.path.startswith("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What the templates list. `image_file` is set where the image is a file whose digest is verified; `prefix` is what
    a variable is called outside to reach the inside, for engines that know no name alone.
    """

    engine: str
    verb: str
    reads: tuple[Line, ...]
    writes: tuple[Line, ...]
    mounts: tuple[Line, ...]
    options: tuple[Line, ...]
    devices: tuple[str, ...]
    passed: tuple[str, ...]
    prefix: str
    image_file: ShellWord | None
    has_relative: bool
    wants_groups: bool
    wants_infiniband: bool


def container(plan: Plan) -> Container | None:
    """The container of a plan without errors; None if it has none."""
    engine = plan["launch.container.engine"]
    if engine is None:
        return None
    reads, writes = mounted(plan)
    image = plan["launch.container.image"]
    file = under_root(image) if is_file(engine, image) else None
    return Container(
        engine=engine,
        verb="exec" if engine in HPC else "run",
        reads=tuple(_lines(reads)),
        writes=tuple(_lines(writes)),
        mounts=tuple(_extra(plan)),
        options=tuple(_options(plan, file)),
        # enroot hands on the NVIDIA GPUs by itself; where ENROOT_RESTRICT_DEV is set, nothing else of /dev is there.
        devices=("/dev/kfd:/dev/kfd", "/dev/dri:/dev/dri") if _has_gpus(plan) and _is_amd(plan) else (),
        passed=passed(plan),
        prefix={"apptainer": "APPTAINERENV_", "singularity": "SINGULARITYENV_"}.get(engine, ""),
        image_file=file,
        has_relative=any(not one.is_absolute for one in (*reads, *writes)),
        wants_groups=engine == "docker",
        wants_infiniband=engine in DAEMONS and _has_gpus(plan) and plan["launch.nnodes"] > 1,
    )


def passed(plan: Plan) -> tuple[str, ...]:
    """The variables that go in by their names: no value of them stands in a command line."""
    trackers = (name for key, names in TRACKERS.items() if plan[key] is not None for name in names)
    hub = ("HF_TOKEN",) if any(path.startswith(HUB) for _, path, _ in _rows(plan)) else ()
    return tuple(dict.fromkeys((*PASSED, *trackers, *hub, *plan["launch.secrets"])))


def mounted(plan: Plan) -> tuple[list[Mounted], list[Mounted]]:
    """What the plan reads, and what it writes. A path inside another one comes with it."""
    writes = _outermost([("logging.run_path", plan["logging.run_path"]), *_written(plan)], [])
    return _outermost(_read(plan), writes), writes


def covers(outer: str, inner: str) -> bool:
    """Whether the normalised path `inner` is `outer` or lies in it; a relative path and an absolute one never meet."""
    if outer.startswith("/") != inner.startswith("/"):
        return False
    if outer in ("/", "."):
        return not inner.startswith("..")
    return inner == outer or inner.startswith(f"{outer}/")


def is_file(engine: str, image: str) -> bool:
    """Whether the image is a file of its own rather than a name in a registry."""
    if engine == "pyxis":
        return image.startswith(("/", "./")) or image.endswith((".sqsh", ".squashfs"))
    return engine in HPC and "://" not in image


def split_mount(text: str) -> tuple[str, str, bool]:
    """Source, target and whether it is read-only, of `SRC:DST[:ro]`."""
    source, target, *mode = text.split(":")
    return source, target, mode == ["ro"]


def under_root(path: str) -> ShellWord:
    """A run-time path as one word of bash: relative ones lie below `$root`."""
    path = normpath(path)
    if path.startswith("/"):
        return sh(path)
    return ShellWord('"$root"' if path == "." else f'"$root"/{sh(path)}')


def _written(plan: Plan) -> list[tuple[str, str]]:
    keys = ("checkpoint.save", "logging.tensorboard_dir", "data.store_path")
    found = [(key, plan[key]) for key in keys if plan[key] is not None]
    folder = _tracked(plan[TRACKING_URI]) if plan["logging.mlflow.experiment"] is not None else None
    return found if folder is None else [*found, (TRACKING_URI, folder)]


def _tracked(uri: str | None) -> str | None:
    """The directory of MLflow's own files, as MLflow and SQLAlchemy read such an address; None where it is not local.
    Of a database it is the whole directory: SQLite makes its journal beside it.
    """
    if uri is None or uri == "databricks":
        return None
    if found := SQLITE.match(uri):
        return dirname(found["path"]) or "."
    scheme = urlsplit(uri).scheme
    return unquote(urlsplit(uri).path if scheme == "file" else uri) if scheme in ("", "file") else None


def _read(plan: Plan) -> list[tuple[str, str]]:
    found = [("tokenizer.path", plan["tokenizer.path"])]
    for key, path, format in _rows(plan):
        if not path.startswith(HUB):  # a prefix names no file; its directory holds tokens and masks
            found.append((key, path.rpartition("/")[0] or "." if format == "tokens" else path))
    if plan["model.load"] is not None:
        found.append(("model.load", plan["model.load"].removeprefix("hf:")))
    if plan["megatron.path"] is not None:
        found.append(("megatron.path", plan["megatron.path"]))
    return found


def _rows(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Key, path and format of whatever rows are read from."""
    for key in ("data.train_data_path", "data.valid_data_path"):
        if plan[key] is not None:
            yield key, plan[key], plan["data.format"]
    for number, source in enumerate(plan["data.sources"] or []):
        yield f"data.sources.{number}.path", source["path"], source.get("format", plan["data.format"])


def _outermost(named: Iterable[tuple[str, str]], writes: list[Mounted]) -> list[Mounted]:
    """Paths that lie in no other one, each with the keys of those in it; what lies in one of `writes` is left out."""
    keys: dict[str, list[str]] = {}
    for key, path in named:
        keys.setdefault(normpath(path), []).append(key)
    outer = [path for path in keys if not any(covers(other, path) for other in keys if other != path)]
    return [
        Mounted(path=path, keys=tuple(key for inner in keys if covers(path, inner) for key in keys[inner]))
        for path in outer
        if not any(covers(one.path, path) for one in writes)
    ]


def _lines(paths: Iterable[Mounted]) -> Iterator[Line]:
    yield from (Line(word=under_root(one.path), reason=", ".join(one.keys)) for one in paths)


def _extra(plan: Plan) -> Iterator[Line]:
    """`launch.container.mounts`, as the engine spells them."""
    for number, text in enumerate(plan["launch.container.mounts"]):
        source, target, is_read_only = split_mount(text)
        if plan["launch.container.engine"] == "pyxis":
            word = f"{under_root(source)}:{sh(target)}{':ro' if is_read_only else ''}"
        else:
            word = f'--mount="$(bind {under_root(source)} {sh(target)}){",ro" if is_read_only else ""}"'
        yield Line(word=ShellWord(word), reason=f"launch.container.mounts.{number}")


def _has_gpus(plan: Plan) -> bool:
    return bool(plan["launch.device"] != "cpu")


def _is_amd(plan: Plan) -> bool:
    hardware = plan["launch.hardware"]
    return hardware is not None and hardware_table()[hardware].is_amd


def _options(plan: Plan, file: ShellWord | None) -> Iterator[Line]:
    engine = plan["launch.container.engine"]
    of_engine = _of_daemons if engine in DAEMONS else _of_apptainer if engine in HPC else _of_pyxis
    yield from (Line(word=ShellWord(word), reason=reason) for word, reason in of_engine(plan))
    image = ShellWord('"$image"') if file is not None else sh(_image(plan))
    word = ShellWord(f"--container-image={image}") if engine == "pyxis" else image
    yield Line(word=word, reason="launch.container.image")


def _image(plan: Plan) -> str:
    """The image as its engine spells it. Not every one takes a tag beside a digest, so it is left out for all."""
    engine, image = plan["launch.container.engine"], plan["launch.container.image"]
    scheme = next((scheme for scheme in SCHEMES if image.startswith(scheme)), "")
    found = REFERENCE.fullmatch(image.removeprefix(scheme))
    assert found is not None, "the rules let no other image through"
    registry, path, digest = found["registry"], found["path"], f"sha256:{found['digest']}"
    if engine == "pyxis":  # enroot before version 4 takes a digest in the place of a tag only
        return f"{registry}#{path}:{digest}" if registry else f"{path}:{digest}"
    if engine == "podman" and registry is None:  # which asks, or refuses, where a short name leads
        registry, path = "docker.io", path if "/" in path else f"library/{path}"
    return f"{scheme}{registry}/{path}@{digest}" if registry else f"{scheme}{path}@{digest}"


def _of_daemons(plan: Plan) -> Iterator[tuple[str, str]]:
    """docker and podman, which part a container from everything unless they are told otherwise."""
    is_docker = plan["launch.container.engine"] == "docker"
    yield "--rm", "nothing stays behind but what is mounted"
    yield "--init", "passes signals on to the supervisor, also while the data is prepared, and takes in orphans"
    yield f"--stop-timeout={plan['launch.stop_seconds'] + GRACE}", "launch.stop_seconds"
    yield "--ipc=host", "the data loader and NCCL share memory, of which a container has 64 MB"
    if plan["launch.nnodes"] > 1:
        yield "--network=host", "the nodes meet at a port of the host, and NCCL picks its interfaces"
        yield "--uts=host", "torchrun compares the name of the host with MASTER_ADDR"
    if _has_gpus(plan):
        yield ("--ulimit=memlock=-1" if is_docker else "--ulimit=host"), "NCCL pins memory"
        if _is_amd(plan):
            yield "--device=/dev/kfd", "the compute interface of all AMD GPUs"
            yield "--device=/dev/dri", "the AMD GPUs"
        else:
            yield ("--gpus=all" if is_docker else "--device=nvidia.com/gpu=all"), "the NVIDIA GPUs"
        if plan["launch.nnodes"] > 1:
            yield '${infiniband:+"$infiniband"}', "NCCL reaches the other nodes over InfiniBand, where there is one"
    if is_docker:
        yield '--user="$(id -u):$(id -g)"', "what the run writes belongs to the caller"
        yield '"${groups[@]/#/--group-add=}"', "what the caller reads and uses through a group is open inside too"
    else:
        yield "--userns=keep-id", "what the run writes belongs to the caller"
        yield "--group-add=keep-groups", "what the caller reads and uses through a group is open inside too"
        yield "--security-opt=label=disable", "SELinux would keep out mounted paths, and nothing is relabelled"
    if plan["launch.container.privileged"]:
        yield "--privileged", "launch.container.privileged"
    yield "--env=SFTC_IN_CONTAINER=1", "this script goes on inside"
    yield '"${passed[@]/#/--env=}"', "by name: values stand in no command line"
    yield '"${mounts[@]}"', "what is read and written, and nothing else"
    yield '--workdir="$root"', "relative paths start here"
    yield "--entrypoint=bash", "launch.sh runs, and nothing of the image before it"


def _of_apptainer(plan: Plan) -> Iterator[tuple[str, str]]:
    """apptainer and singularity, which share network, shared memory and limits with the host."""
    yield "--cleanenv", "of the caller's environment only the names above go in"
    yield "--no-eval", "values are what they are, also with a `$` in them"
    yield "'--no-mount=home,cwd'", "no packages out of ~/.local, no files that the plan does not name"
    if _has_gpus(plan):
        yield ("--rocm", "the AMD GPUs") if _is_amd(plan) else ("--nv", "the NVIDIA GPUs")
    yield "--env=SFTC_IN_CONTAINER=1", "this script goes on inside"
    yield '"${mounts[@]}"', "what is read and written"
    yield '--pwd="$root"', "relative paths start here"


def _of_pyxis(plan: Plan) -> Iterator[tuple[str, str]]:
    """Options of srun."""
    yield '--container-mounts="$(IFS=,; printf %s "${mounts[*]}")"', "what is read and written"
    yield "--no-container-mount-home", "no packages out of ~/.local"
    yield '--container-workdir="$root"', "relative paths start here"
    names = ",".join(("SFTC_IN_CONTAINER", *passed(plan)))
    yield f"'--container-env={names}'", "these win over values of the image"
