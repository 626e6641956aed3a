"""The dependency rules, read off the imports themselves."""

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sftc.compiler import __version__
from sftc.compiler.reach import MODULES

ROOT = Path(__file__).resolve().parents[2]
OURS = ("compiler", "runtime")
SOURCES = sorted(path for folder in OURS for path in (ROOT / folder).rglob("*.py"))
HEAVY = {"torch", "megatron", "transformers", "numpy", "tokenizers"}
# Each third-party library has one importing module.
SOLE_IMPORTERS = {
    "ruamel": "compiler/loader.py",
    "jsonschema": "compiler/validate.py",
    "jinja2": "compiler/render.py",
    "click": "compiler/cli/__init__.py",
}
FOLDERS = {"recipes", "schema", "templates", "compiler", "runtime", "tests", "docs", ".ci"}


def imports(path: Path) -> Iterator[str]:
    """Absolute names of the modules that `path` imports, wherever in it; relative ones are resolved."""
    package = ["sftc", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield ".".join([*base, *([node.module] if node.module else [])])


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_keep_the_rules(path: Path) -> None:
    own, other = ("compiler", "runtime") if relative(path).startswith("compiler/") else ("runtime", "compiler")
    for name in imports(path):
        top = name.split(".")[0]
        assert top not in FOLDERS, f"{name}: import it as sftc.{name}"
        assert not name.startswith(f"sftc.{other}"), f"{own} and {other} meet in files only"
        if own == "compiler":
            assert top not in HEAVY
            if top in SOLE_IMPORTERS:
                assert relative(path).startswith(SOLE_IMPORTERS[top].removesuffix(".py").removesuffix("__init__"))
        else:
            assert top not in {"click", "jsonschema", "ruamel"}
            if top in {"wandb", "mlflow"}:
                assert relative(path) == f"runtime/trackers/{top}.py"
        if top == "megatron":
            assert own == "runtime"


def test_the_rules_are_about_something() -> None:
    """The walk sees relative imports, and the sole importers do import."""
    assert "sftc.compiler.diagnostics" in set(imports(ROOT / "compiler/rules/context.py"))
    for library, module in SOLE_IMPORTERS.items():
        assert any(name.split(".")[0] == library for name in imports(ROOT / module))


def test_one_module_loads_the_runtime_and_by_name() -> None:
    """`sftc data ...`, `export`, `lock`, `preflight`, `model.hf` and `lora.targets` need it; nothing at import time."""
    users = [path for path in SOURCES if "import_module(" in path.read_text() or "__import__(" in path.read_text()]
    ours = [relative(path) for path in users if relative(path).startswith("compiler/")]
    assert ours == ["compiler/cli/__init__.py", "compiler/reach.py"]  # the first loads its own commands
    text = (ROOT / "compiler/reach.py").read_text()
    assert text.count("import_module(MODULES[name])") == text.count("import_module(") == 1
    assert all(name.startswith("sftc.runtime.") for name in MODULES.values())


def test_the_knowledge_of_config_json_is_light() -> None:
    """`sftc compile` reads it: no library, and nothing of the runtime but tables and files."""
    code = "import sys; before = set(sys.modules); import sftc.runtime.hf.config; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.split(".")[0] not in sys.stdlib_module_names}
    ours = (
        "",
        ".runtime",
        ".runtime.errors",
        ".runtime.hf",
        *(f".runtime.hf.{name}" for name in ("config", "files", "tables")),
    )
    assert loaded <= {f"sftc{name}" for name in ours}


def test_the_knowledge_of_targets_is_light() -> None:
    code = (
        "import sys; before = set(sys.modules); import sftc.runtime.lora.targets; print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.split(".")[0] not in sys.stdlib_module_names}
    assert loaded <= {"sftc", "sftc.runtime", "sftc.runtime.lora", "sftc.runtime.lora.targets"}


def test_packages_are_those_on_disk() -> None:
    """A sub-package that pyproject.toml forgets would be missing from the wheel."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    on_disk = {
        path.parent for folder in (*OURS, "schema", "templates") for path in (ROOT / folder).rglob("__init__.py")
    }
    assert sorted(listed) == sorted("sftc." + ".".join(path.relative_to(ROOT).parts) for path in on_disk)


def test_every_module_is_short() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in SOURCES}
    tables = {"compiler/codes.py", "compiler/examples.py"}
    assert not {path: length for path, length in lengths.items() if length > 400 and path not in tables}
    assert sorted(lengths.values())[len(lengths) // 2] <= 150


def test_only_builddir_writes() -> None:
    writers = ("write_text", "write_bytes", "mkdir", "unlink", "chmod", "replace(target", "mkstemp")
    for path in (ROOT / "compiler").rglob("*.py"):
        if path.name != "builddir.py":
            assert not [word for word in writers if f".{word}(" in path.read_text()], relative(path)


def test_only_the_command_line_looks_around() -> None:
    """No clock anywhere in the compiler; the environment and the streams only in cli/."""
    for path in (ROOT / "compiler").rglob("*.py"):
        names = set(imports(path))
        assert not names & {"time", "datetime", "socket", "random", "getpass", "platform"}, relative(path)
        if path.parent.name != "cli" and path.name != "__main__.py":
            assert "os.environ" not in path.read_text(), relative(path)
            assert "print(" not in path.read_text(), relative(path)


def test_the_version_is_said_once() -> None:
    """What artifacts are stamped with is what is installed."""
    assert importlib.metadata.version("sftc") == __version__


def test_the_light_install_is_light() -> None:
    """`pip install sftc` brings four libraries; tokenizers, torch and megatron come with extras."""
    wanted = [line for line in importlib.metadata.requires("sftc") or [] if "extra ==" not in line]
    assert sorted(line.split(">")[0] for line in wanted) == ["click", "jinja2", "jsonschema", "ruamel.yaml"]
    assert sys.version_info >= (3, 12)
