"""What is installed on this node, against the plan."""

import platform

from .. import megatron, trackers
from ..bundle import Bundle
from ..record import packages
from .finding import Findings

# As people call them, by the name of the distribution.
NAMES = {"torch": "torch", "transformer-engine": "Transformer Engine", "sftc": "sftc"}
SAME = "give every node the same environment"


def versions(bundle: Bundle, found: Findings) -> None:
    """UserError for what is missing or is of another line than the plan's target."""
    there = packages()
    shown = {"Python": platform.python_version(), "torch": there.get("torch", "")}
    if not shown["torch"]:
        found.add("versions", "failed", "torch is not installed here", "pip install 'sftc[runtime]'")
        return
    shown["Megatron-Core"] = megatron.require_target(bundle.megatron_target)
    impl = bundle.value("model.transformer_impl")
    megatron.require_layers(impl)
    megatron.require_extension(bundle.value("launch.max_inprocess_restarts", 0))
    trackers.require(bundle)
    shown |= {
        name: there[package]
        for package, name in NAMES.items()
        if package in there and (package != "transformer-engine" or impl == "transformer_engine")
    }
    found.facts |= shown
    found.add("versions", "ok", ", ".join(f"{name} {version}" for name, version in shown.items()))
    compiled = bundle.plan.get("sftc_version")
    if compiled not in (None, shown.get("sftc", compiled)):
        found.add(
            "versions",
            "warning",
            f"sftc {shown['sftc']} is installed, and sftc {compiled} compiled this build",
            "compile again with what is installed, or install what compiled it",
        )
