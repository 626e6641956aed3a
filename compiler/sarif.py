"""Diagnostics as SARIF 2.1.0, which code-scanning services read.

Format: Static Analysis Results Interchange Format, an OASIS standard. Each code is a rule with its explanation and
examples as help.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from . import __version__
from .codes import CODES
from .diagnostics import Diagnostic, Severity, Span
from .pages import code_page

_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}


def render_sarif(diagnostics: Sequence[Diagnostic], sources: Mapping[str, str], colour: bool) -> str:  # noqa: ARG001
    """A log with one run, of which `rules` holds the codes that occur."""
    codes = sorted({item.code for item in diagnostics})
    driver = {"name": "sftc", "version": __version__, "rules": [_rule(code) for code in codes]}
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "columnKind": "unicodeCodePoints",
                "results": [_result(item, codes.index(item.code)) for item in diagnostics],
            }
        ],
    }
    return json.dumps(log, ensure_ascii=False, indent=2) + "\n"


def _rule(code: str) -> dict[str, Any]:
    entry = CODES[code]
    return {
        "id": code,
        "shortDescription": {"text": entry.title},
        "fullDescription": {"text": entry.explanation},
        "help": {"text": entry.explanation, "markdown": code_page(code)},
    }


def _result(item: Diagnostic, index: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": item.code,
        "ruleIndex": index,
        "level": _LEVELS[item.severity],
        "message": {"text": f"{item.message}\nhelp: {item.help}" if item.help else item.message},
    }
    if item.span:
        result["locations"] = [{"physicalLocation": _location(item.span)}]
    related = [
        {"id": number, "message": {"text": one.message}, "physicalLocation": _location(one.span)}
        for number, one in enumerate(item.related)
        if one.span
    ]
    return {**result, "relatedLocations": related} if related else result


def _location(span: Span) -> dict[str, Any]:
    region = {
        "startLine": span.line,
        "startColumn": span.column,
        "endLine": span.end_line,
        "endColumn": span.end_column,
    }
    return {"artifactLocation": {"uri": _uri(span.file)}, "region": region}


def _uri(name: str) -> str:
    """A path as a URI reference: relative ones are what a service maps to files of the repository."""
    path = PurePath(name)
    text = quote(path.as_posix().encode("utf-8", "surrogateescape"))
    # A colon in the first segment would read as a scheme.
    return f"file://{text}" if path.is_absolute() else text.replace(":", "%3A")
