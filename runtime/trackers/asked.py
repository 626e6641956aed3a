"""Which trackers a recipe asks for, and whether their libraries are there. Imports none of them."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..bundle import Bundle
from ..errors import UserError
from .follow import Follower, Tracker

# Library and extra → the key that asks for it.
LIBRARIES = {"wandb": "logging.wandb.project", "mlflow": "logging.mlflow.experiment"}


def require(bundle: Bundle) -> None:
    """UserError if the library of a tracker that is asked for is not installed."""
    for library in _asked(bundle):
        if find_spec(library) is None:
            raise UserError(
                f"`logging.{library}` needs the library `{library}`, which is not installed here",
                help=f"pip install 'sftc[{library}]', or leave `logging.{library}` out",
            )


def following(bundle: Bundle, run_path: Path, say: Callable[[str], None]) -> list[Follower]:
    """One for each tracker that is asked for, not begun. `say` takes their warnings, from other threads."""
    return [
        Follower(_tracker(library, bundle, run_path), run_path, manifest=bundle.digest, say=say)
        for library in _asked(bundle)
    ]


def _asked(bundle: Bundle) -> list[str]:
    return [library for library, key in LIBRARIES.items() if bundle.value(key) is not None]


def _tracker(library: str, bundle: Bundle, run_path: Path) -> Tracker:
    def value(key: str) -> Any:
        return bundle.value(f"logging.{library}.{key}")

    build = {
        "name": bundle.name,
        "manifest": bundle.digest,
        "megatron": bundle.megatron_target,
        "sftc": bundle.plan.get("sftc_version"),
    }
    config = {**_values(bundle.plan["values"]), "build": build}
    if library == "wandb":
        from .wandb import Wandb

        return Wandb(
            project=value("project"),
            entity=value("entity"),
            run_name=value("name") or bundle.name,
            group=value("group"),
            tags=value("tags"),
            mode=value("mode"),
            notes=bundle.plan.get("description"),
            config=config,
            run_path=run_path,
        )
    from .mlflow import Mlflow

    return Mlflow(
        tracking_uri=value("tracking_uri"),
        experiment=value("experiment"),
        run_name=value("run_name") or bundle.name,
        tags=value("tags"),
        notes=bundle.plan.get("description"),
        config=config,
        run_path=run_path,
    )


def _values(node: Any) -> Any:
    """The values of a plan without their origins."""
    return {
        name: child["value"] if set(child) == {"value", "origin"} else _values(child) for name, child in node.items()
    }
