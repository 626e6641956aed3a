"""Each configuration in primus/ and megatron/ gets exactly the recipe and the report that lie beside it.

A new case is a new file, with the words of its command line in a file `.options` if it needs some.
"""

import re
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sftc.compiler.cli import cli
from sftc.compiler.codes import CODES
from sftc.compiler.compile import check_recipe
from sftc.compiler.importers.finish import Imported
from sftc.compiler.importers.given import read_given
from sftc.compiler.importers.ledger import Fate
from sftc.compiler.importers.megatron import import_megatron
from sftc.compiler.importers.primus import import_primus
from sftc.compiler.importers.request import Request
from sftc.compiler.loader import load
from sftc.compiler.schemas import leaves
from sftc.compiler.source import read_source

FOLDER = Path(__file__).parent
CASES = sorted(
    path
    for tool in ("primus", "megatron")
    for path in (FOLDER / tool).iterdir()
    if path.suffix in (".yaml", ".sh", ".args")
)
GOOD = [path for path in CASES if "exit 0" in path.with_name(f"{path.name}.out").read_text().splitlines()[:1]]


def words(path: Path) -> list[str]:
    options = path.with_suffix(".options")
    return options.read_text().split() if options.exists() else []


def run(path: Path, *more: str) -> Result:
    name = path.relative_to(FOLDER).as_posix()
    return CliRunner().invoke(cli, ["import", path.parent.name, name, *words(path), *more])


def imported(path: Path) -> Imported:
    """The same without the command line."""
    pairs = list(zip(words(path)[::2], words(path)[1::2], strict=True))
    request = Request(
        variables=dict(value.split("=", 1) for option, value in pairs if option == "--env"),
        given=read_given(value for option, value in pairs if option == "--set"),
        task=next((value for option, value in pairs if option == "--task"), None),  # type: ignore[arg-type]
        root=next((Path(value) for option, value in pairs if option == "--primus-root"), None),
    )
    importer = import_primus if path.parent.name == "primus" else import_megatron
    return importer(path.relative_to(FOLDER), path.name, request)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_recipe_and_report(path: Path, request: pytest.FixtureRequest) -> None:
    done = run(path, "--draft")
    assert not done.exception or isinstance(done.exception, SystemExit), done.exception
    actual = f"exit {done.exit_code}\n\n{done.stdout}\n{done.stderr}"
    expected = path.with_name(f"{path.name}.out")
    if request.config.getoption("--update-golden"):
        expected.write_text(actual, encoding="utf-8")
    assert actual == expected.read_text(encoding="utf-8")


def test_every_code_of_an_import_has_a_case() -> None:
    reports = "".join(path.read_text() for path in FOLDER.glob("*/*.out"))
    assert [code for code in CODES if code[4] == "7" and f"[{code}]" not in reports] == []


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.name)
def test_a_recipe_without_errors_validates(path: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    assert run(path, "-o", str(recipe)).exit_code == 0
    assert check_recipe(recipe, recipe.name).plan is not None


@pytest.mark.parametrize("path", [path for path in CASES if path.suffix == ".yaml"], ids=lambda path: path.name)
def test_every_key_of_a_configuration_is_accounted_for_once(path: Path) -> None:
    source, _ = read_source(path, path.name)
    assert source
    document, _ = load(source)
    assert document
    keys = [
        place.key
        for pointer, place in document.places.items()
        if place.key
        and not pointer.startswith("/extends")
        and not any(p.startswith(f"{pointer}/") for p in mappings(document.places))
    ]
    own = [
        entry.setting.span
        for entry in imported(path).entries
        if entry.setting.span and entry.setting.span.file == path.name
    ]
    if not own:
        assert path.stem in ("two-trainers", "other-framework", "a-preset")
    else:
        assert Counter(own) == Counter(keys)


def mappings(places: dict) -> list[str]:  # type: ignore[type-arg]
    """Pointers of what stands under a key; the items of lists do not."""
    return [pointer for pointer in places if not re.search(r"/\d+$", pointer)]


@pytest.mark.parametrize("path", [path for path in GOOD if path.suffix != ".yaml"], ids=lambda path: path.name)
def test_every_option_of_a_command_line_is_accounted_for_once(path: Path) -> None:
    text = "\n".join(line.split(" #")[0] for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    options = Counter(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))
    assert (
        Counter(entry.setting.name for entry in imported(path).entries if entry.setting.name.startswith("--"))
        == options
    )


@pytest.mark.parametrize("path", [path for path in GOOD if path.suffix != ".yaml"], ids=lambda path: path.name)
def test_what_is_mapped_reaches_megatron_with_its_value(path: Path, tmp_path: Path) -> None:
    """Through the recipe and its plan back to the options: the same ones, but for samples and what sftc manages."""
    recipe = tmp_path / "recipe.yaml"
    run(path, "-o", str(recipe))
    plan = check_recipe(recipe, recipe.name).plan
    assert plan
    there = {argument.option: argument.values for argument in plan.arguments}
    carried = [
        entry for entry in imported(path).entries if entry.fate is Fate.MAPPED and entry.setting.name.startswith("--")
    ]
    assert len(carried) > 5
    own = {key for key, schema in leaves() if any(word.startswith("x-megatron") for word in schema)}
    for entry in carried:
        if entry.key in own or str(entry.key).startswith("megatron.args."):
            assert entry.setting.name in there
            assert [float(word) if word[0] in ".0123456789" else word for word in there[entry.setting.name]] == [
                float(word) if word[0] in ".0123456789" else word for word in entry.setting.text.split()
            ]
