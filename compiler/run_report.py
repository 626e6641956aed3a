"""`sftc report`: what the page of a run says of its build, and the page. Neither prints nor exits."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import builddir
from .built import Built, NotBuilt, origin_words, read_built
from .manifest import MANIFEST, SUMS, read_sums
from .render import render_page, supervised_words
from .wording import written

GENERATOR = '<meta name="generator" content="sftc report">'
SILENT = ("default", "derived")  # origins of values that nobody wrote down


def write_report(path: Path, facts: Mapping[str, Any], build: Path, manifest: str | None) -> None:
    """The page of a run, replaced at once. `facts` are the runtime's, `build` is the copy of the build dir, `manifest`
    its digest by the run record. OSError if it cannot be written.
    """
    builddir.write_file(path, render_page("report.html", {**facts, **build_facts(build, manifest)}))


def build_facts(build: Path, manifest: str | None) -> dict[str, Any]:
    """The plan with its origins, the SFT flag and the digests; all empty where the copy is missing or torn."""
    try:
        return _facts(read_built(build, str(build), needs_places=False), build, manifest)
    except NotBuilt as error:
        problem = str(error)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # edited by hand
        problem = f"the build in {build} cannot be read: {error!r}"
    empty: dict[str, Any] = {
        "task": [],
        "sections": [],
        "outputs": [],
        "inputs": [],
        "input_count": 0,
        "description": "",
    }
    return {**empty, "identity": "", "build_problems": [problem]}


def _facts(built: Built, build: Path, manifest: str | None) -> dict[str, Any]:
    problems = [f"{name} in {build} is not what was compiled" for name in built.texts if built.is_edited(name)]
    found = read_sums(built.texts[SUMS].encode()).get(MANIFEST, "")
    if manifest is not None and manifest != found:
        problems.append(f"run.json names another build than the one in {build}: {manifest[:12]}, not {found[:12]}")
    inputs = _digests(_inputs(built))
    return {
        "description": built.plan.get("description") or "",
        "task": [_task(built)],
        "sections": list(_sections(built)),
        "outputs": _digests(json.loads(built.texts[MANIFEST])["subject"]),
        "inputs": inputs,
        "input_count": len(inputs),
        "identity": found,
        "build_problems": problems,
    }


def _task(built: Built) -> dict[str, str]:
    task = built.plan["task"]
    places = [built.places.get(pointer.removeprefix("/").replace("/", ".")) for pointer in task["pointers"]]
    loss_on = built.values["data.loss_on"].value
    return {
        "kind": task["kind"],
        "reason": task["reason"].replace("`", ""),
        "supervised": supervised_words(task["kind"], loss_on),
        "place": ", ".join(place for place in places if place),
    }


def _sections(built: Built) -> Iterable[dict[str, Any]]:
    """The keys of each section: those that somebody wrote down, and those that nobody did."""
    sections: dict[str, list[dict[str, str]]] = {}
    silent: dict[str, list[dict[str, str]]] = {}
    for key, entry in built.values.items():
        if key == "description":  # which stands at the top
            continue
        section, _, name = key.partition(".")
        if not name:
            section, name = "run", key
        value = "not set" if entry.value is None else written(entry.value)
        row = {"key": name, "value": value, "origin": origin_words(entry.origin, entry.place)}
        into = silent if entry.origin["from"] in SILENT else sections
        sections.setdefault(section, [])
        into.setdefault(section, []).append(row)
    for section, rows in sections.items():
        more = silent.get(section, [])
        yield {"name": section, "stated": rows, "silent": more, "count": len(more)}


def _inputs(built: Built) -> list[dict[str, Any]]:
    definition = json.loads(built.texts[MANIFEST])["predicate"]["buildDefinition"]
    recipe = {"name": "recipe", "digest": definition["externalParameters"]["recipe"]}
    return [recipe, *definition["resolvedDependencies"]]


def _digests(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [{"name": entry["name"], "value": entry["digest"]["sha256"]} for entry in entries]
