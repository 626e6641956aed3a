"""Read a build dir and prove that it is what was reviewed. Standard library only."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError

PLAN_VERSION = 1
NEEDED = ("plan.json", "megatron.args", "forward_step.py", "manifest.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A verified build dir. `digest` is the sha256 of manifest.json: the identity of the build. `files` are those that
    a digest covers; nothing else in the directory is looked at.
    """

    path: Path
    plan: Mapping[str, Any]
    digest: str
    files: frozenset[str]

    @property
    def name(self) -> str:
        return str(self.plan["name"])

    @property
    def megatron_target(self) -> str:
        """The Megatron version that the arguments were checked against, such as `0.19`."""
        return str(self.plan["target"]["megatron"])

    def value(self, key: str, *before: Any) -> Any:
        """The resolved value of a key such as `train.lr`; None where the recipe leaves it open. UserError if the plan
        does not know the key, unless `before` says how it was before there was such a key.
        """
        node = self.plan["values"]
        try:
            for part in key.split("."):
                node = node[part]
            return node["value"]
        except KeyError:
            if before:
                return before[0]
            message = f"`{self.path / 'plan.json'}` says nothing of `{key}`: it was compiled by another sftc"
            raise UserError(message, help=_RECOMPILE) from None


def read_bundle(path: Path) -> Bundle:
    """Verify every digest of SHA256SUMS and read the plan. UserError for a missing, edited or foreign file."""
    sums_file = path / "SHA256SUMS"
    if not sums_file.is_file():
        raise UserError(
            f"`{path}` is no build dir: it has no `SHA256SUMS`",
            help="name the directory that `sftc compile RECIPE -o DIR` wrote",
        )
    sums = _read_sums(sums_file)
    if unlisted := [name for name in NEEDED if name not in sums]:
        raise UserError(f"`{sums_file}` does not list `{unlisted[0]}`", help=_RECOMPILE)
    for name, expected in sums.items():
        _verify(path / name, expected)
    plan = json.loads((path / "plan.json").read_bytes())
    if plan.get("plan_version") != PLAN_VERSION:
        raise UserError(
            f"`{path / 'plan.json'}` has plan_version {plan.get('plan_version')}, this sftc reads {PLAN_VERSION}",
            help="compile the recipe with the sftc that is installed here",
        )
    _require_agreement(path / "manifest.json", sums)
    return Bundle(path=path, plan=plan, digest=sums["manifest.json"], files=frozenset(sums))


_RECOMPILE = "change the recipe, not the build dir, and compile again (`sftc compile RECIPE -o DIR`)"


def _read_sums(path: Path) -> dict[str, str]:
    """`sha256sum` format: 64 hex digits, two blanks (or a blank and `*`), a file name."""
    sums: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        digest, name = line[:64], line[66:]
        if len(digest) != 64 or line[64:66] not in ("  ", " *") or not name or "/" in name:
            raise UserError(f"`{path}` line {number} is no digest line", help=_RECOMPILE)
        sums[name] = digest
    return sums


def _require_agreement(manifest: Path, sums: Mapping[str, str]) -> None:
    """The manifest is the build's identity, so its digests have to be those that were verified."""
    subjects = json.loads(manifest.read_bytes())["subject"]
    listed = {subject["name"]: subject["digest"]["sha256"] for subject in subjects}
    verified = {name: digest for name, digest in sums.items() if name != manifest.name}
    if differing := sorted(name for name, _ in listed.items() ^ verified.items()):
        raise UserError(f"`{manifest}` and `SHA256SUMS` disagree about `{differing[0]}`", help=_RECOMPILE)


def _verify(path: Path, expected: str) -> None:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(
            f"`{path}` belongs to the build and cannot be read: {error.strerror}", help=_RECOMPILE
        ) from None
    if found != expected:
        raise UserError(
            f"`{path}` is not what was compiled: its sha256 is {found[:12]}, the build says {expected[:12]}",
            help=_RECOMPILE,
        )
