"""Keys renamed and moved in the text of a recipe: it says the same under the new keys, and every comment stays."""

from pathlib import Path

import pytest

from sftc.compiler.loader import RecipeDocument, load
from sftc.compiler.migrate import migrate
from sftc.compiler.schemas import recipe_schema
from sftc.compiler.source import SourceFile
from sftc.compiler.suggest import SYNONYMS, locate
from sftc.compiler.validate import validate

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(ROOT.glob("recipes/**/*.yaml"))


def source(text: str) -> SourceFile:
    return SourceFile(name="r.yaml", text=text, sha256="")


def document(text: str) -> RecipeDocument:
    read, found = load(source(text))
    assert read is not None, found
    return read


def comments(text: str) -> list[str]:
    return sorted(line[line.index("#") :] for line in text.splitlines() if "#" in line)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_good_recipe_stays_byte_for_byte(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = migrate(source(text))
    assert (found.text, found.done, found.left) == (text, (), ())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_other_tools_names_become_ours_in_place(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    places = document(text).places
    renamed = 0
    for name, key in SYNONYMS.items():
        place = places.get("/" + key.replace(".", "/"))
        if place and place.key and "." in key:
            lines = text.split("\n")
            line = lines[place.key.line - 1]
            lines[place.key.line - 1] = line[: place.key.column - 1] + name + line[place.key.end_column - 1 :]
            section = key.rpartition(".")[0]
            found = migrate(source("\n".join(lines)))
            assert found.text == text, name
            assert found.done == ((f"{section}.{name}", key),)
            renamed += 1
    assert renamed > 20


def test_a_key_comes_home_from_wherever_it_was() -> None:
    """Each key that has one home is put on the outermost level, and into a section that does not exist."""
    text = (ROOT / "recipes/quickstart/recipe.yaml").read_text(encoding="utf-8")
    before = document(text)
    moved = 0
    for pointer, place in before.places.items():
        key = pointer.rpartition("/")[2]
        if pointer.count("/") != 2 or place.key is None or len(locate(key, recipe_schema())) != 1:
            continue
        lines = text.split("\n")
        own = lines[place.key.line - 1 : place.value.end_line]
        if isinstance(before.data[pointer.split("/")[1]][key], dict) or len(own) > 1:
            continue
        rest = [*lines[: place.key.line - 1], *lines[place.key.line :]]
        for stray in ([own[0].strip()], ["stray:", f"  # why\n  {own[0].strip()}"]):
            after = migrate(source("\n".join([*rest[:-1], *stray, ""])))
            assert document(after.text).data == before.data, pointer
            assert comments(after.text) == sorted([*comments(text), *(["# why"] if len(stray) > 1 else [])])
            assert after.text.endswith("\n")
        moved += 1
    assert moved > 15


def test_sections_are_made_and_emptied_ones_go() -> None:
    text = "optimizer:\n  # slow\n  learning_rate: 1e-5 # why\ntp: 2\npartition: gpu\nenv:\n  A: '1'\n"
    found = migrate(source(text))
    assert found.text == (
        "\ntrain:\n  # slow\n  lr: 1e-5 # why\n\nparallel:\n  tensor_model_parallel_size: 2\n"
        "\nlaunch:\n  slurm:\n    partition: gpu\n  environment:\n    A: '1'\n"
    )
    assert found.left == ()


def test_what_has_no_one_place_to_go_is_left() -> None:
    text = "train:\n  lr: 1e-5\n  learning_rate: 2e-5\n  seq_lenght: 4\npath: x\nmodel: {warmup_steps: 3}\nbf16: true\n"
    found = migrate(source(text))
    assert (found.text, found.done) == (text, ())
    assert found.left == (
        "`train.learning_rate` belongs to `train.lr`, and is given as well: do it by hand",
        "`model.warmup_steps` belongs to `train.lr_warmup_iters`, and its lines cannot be moved: do it by hand",
    )


def test_a_section_in_braces_takes_renames_and_no_moves() -> None:
    found = migrate(source("train: {learning_rate: 1e-5, max_steps: 3} # x\nwarmup_steps: 4\n"))
    assert found.text == "train: {lr: 1e-5, train_iters: 3} # x\nwarmup_steps: 4\n"
    assert len(found.left) == 1


@pytest.mark.parametrize(
    "value",
    [
        "|\n    two\n    lines\n",
        "\n    - a\n    - b # c\n",
        "'a\n    b'\n",
        ">-\n    folded\n\n    text\n",
        "[a,\n    b]\n",
    ],
)
def test_values_of_several_lines_move_whole(value: str) -> None:
    text = f"wrong:\n  output_dir: {value}# end\n"
    found = migrate(source(text))
    assert found.done == (("wrong.output_dir", "checkpoint.save"),)
    assert document(found.text).data == {"checkpoint": {"save": document(text).data["wrong"]["output_dir"]}}
    assert comments(found.text) == comments(text)


@pytest.mark.parametrize("text", ["- a\n", "a: *b\n", "a: [\n", "", "a: 1\n---\nb: 2\n"])
def test_what_is_no_recipe_is_left_alone(text: str) -> None:
    assert migrate(source(text)).text == text


def test_what_is_left_is_an_error_that_validate_tells() -> None:
    """Nothing that migrate cannot do passes for done."""
    text = "train:\n  lr: 1e-5\n  learning_rate: 2e-5\n"
    codes = {item.code for item in validate(document(migrate(source(text)).text), recipe_schema())}
    assert "SFTC201" in codes
