"""The container: an image that stays what it is, an engine that can do what it is asked for, mounts in nobody's way."""

import re
from collections.abc import Iterator

from ..container import DAEMONS, HPC, REFERENCE, SCHEMES, covers, is_file, mounted, split_mount
from ..diagnostics import Diagnostic
from .context import Context

IMAGE, SHA256, MOUNTS = "launch.container.image", "launch.container.image_sha256", "launch.container.mounts"
FILES = (".sif", ".img", ".sqsh", ".squashfs")
UNWRITABLE = re.compile(r"[,:\s]")  # part the mounts of pyxis, and the words of enroot below it


def digest(context: Context) -> Iterator[Diagnostic]:
    engine, image = context["launch.container.engine"], context[IMAGE]
    if engine is None or _misread(engine, image):
        return
    if is_file(engine, image):
        if context[SHA256] is None:
            help = f"write what `sha256sum {image}` prints: `image_sha256: ...`"
            yield context.error("SFTC475", IMAGE, f"nothing says what is in the file `{image}`", help=help)
        return
    bare = _without_scheme(image)
    if REFERENCE.fullmatch(bare) is None:
        name = bare.partition("@")[0]
        if "@" in bare:
            message = f"`{image}` is not of the form REGISTRY/NAME@sha256:<64 hexadecimal digits>"
        else:
            message = f"`{image}` names no digest, and a tag may lead to another image tomorrow"
        help = f"`docker buildx imagetools inspect {name.replace('#', '/')}` prints it; write `{name}@sha256:...`"
        yield context.error("SFTC475", IMAGE, message, help=help)
    if context[SHA256] is not None:
        message = f"`{SHA256}` is of an image file, and `{image}` is none"
        yield context.error("SFTC475", SHA256, message, also=(IMAGE,), help="leave it out")


def slurm(context: Context) -> Iterator[Diagnostic]:
    if context["launch.container.engine"] == "pyxis" and context["launch.launcher"] != "slurm":
        message = "pyxis is a plugin of Slurm, and nothing starts this container without it"
        help = "set `launch.launcher: slurm`, or take docker, podman or apptainer"
        yield context.error("SFTC476", "launch.container.engine", message, also=("launch.launcher",), help=help)


def mounts(context: Context) -> Iterator[Diagnostic]:
    if context["launch.container.engine"] is None:
        return
    reads, writes = mounted(context.plan)
    targets: list[str] = []
    for number, text in enumerate(context[MOUNTS]):
        key, (source, target, _) = f"{MOUNTS}.{number}", split_mount(text)
        if target in targets:
            yield context.error("SFTC477", key, f"`{target}` is the target of another mount", help="keep one of them")
        targets.append(target)
        for one in (*reads, *writes):
            if not covers(target, one.path) and not covers(one.path, target):
                continue
            name = f"`{one.keys[0]}` ({one.path})"
            if source == target == one.path:
                message, help = f"`{text}` repeats {name}, which is mounted anyway", "leave it out"
            else:
                message, help = f"`{text}` hides {name}, or a part of it", "choose another target"
            yield context.error("SFTC477", key, message, also=(one.keys[0],), help=help)


def engine(context: Context) -> Iterator[Diagnostic]:
    name, image = context["launch.container.engine"], context[IMAGE]
    if name is None:
        return
    if found := _misread(name, image):
        message, help = found
        yield context.error("SFTC478", IMAGE, message, also=("launch.container.engine",), help=help)
    if name in DAEMONS and context["launch.device"] == "auto":
        message = f"{name} hands out GPUs when it starts a container, before anybody can look for one"
        help = "say `device: cuda` or `device: cpu`"
        yield context.error("SFTC478", "launch.device", message, also=("launch.container.engine",), help=help)
    if name not in DAEMONS and context["launch.container.privileged"]:
        message = f"{name} knows no privileged container"
        key = "launch.container.privileged"
        yield context.error("SFTC478", key, message, also=("launch.container.engine",), help="leave it out")


def paths(context: Context) -> Iterator[Diagnostic]:
    if context["launch.container.engine"] != "pyxis":
        return
    reads, writes = mounted(context.plan)
    named = {one.keys[0]: one.path for one in (*reads, *writes)}
    for number, text in enumerate(context[MOUNTS]):
        named[f"{MOUNTS}.{number}"] = "".join(split_mount(text)[:2])
    for key, path in named.items():
        if UNWRITABLE.search(path):
            message = f"`{key}` holds a comma, a colon or a blank, at which pyxis parts its mounts"
            yield context.error("SFTC455", key, message, help="name it otherwise, or take another engine")


def _without_scheme(image: str) -> str:
    return image.removeprefix(next((scheme for scheme in SCHEMES if image.startswith(scheme)), ""))


def _misread(engine: str, image: str) -> tuple[str, str] | None:
    """A message and a help where the engine would take the image for something else."""
    bare = _without_scheme(image)
    if engine in HPC:
        is_name = REFERENCE.fullmatch(image) or (":" in image and not image.endswith(FILES))
        if "://" not in image and is_name:
            return f"{engine} takes `{image}` for a file", f"write `docker://{image}`"
    elif bare != image:
        return f"{engine} knows no `{image[: len(image) - len(bare)]}`", f"write `{bare}`"
    elif engine in DAEMONS and (image.endswith(FILES) or image.startswith(("/", "./"))):
        return f"{engine} starts no image file", "name an image in a registry by its digest, or take apptainer"
    return None


RULES = (digest, slurm, mounts, engine, paths)
