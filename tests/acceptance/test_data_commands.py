"""`sftc data prepare`, `stats` and `preview`, as a user types them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sftc.runtime.bundle import read_bundle
from sftc.runtime.data.prepare import prepare_run

ROWS = [
    ("Name the colour of a lemon.", "yellow"),
    ("<script>alert(1)</script>", "It is </span><b>text</b>."),
    ("What does 🐱 show?", "a cat"),
]
PREVIEW = """\
tokens stand between │; those that are trained on are underlined with ‾

train sample 1: 23 tokens, 4 of 22 labels trained on (18%)
│<|turn|>│user│⏎│
│Name│ the│ colour│ of│ a│ l│e│m│on│.│<|end|>│⏎│
│<|turn|>│assistant│⏎│
│y│ell│ow│<|end|>│⏎│
 ‾ ‾‾‾ ‾‾ ‾‾‾‾‾‾‾
"""
STATS = """\
quickstart                            train
rows                                      4
samples                                   3
left out                                  1
  no-column                               1
cut to 96 positions                       0
  tokens lost by it                       0
samples that repeat an earlier one        0
messages without their reasoning          0
masks proven by
  generation blocks                       3
"""


@pytest.fixture
def small(recipe: Path, repo_root: Path, tmp_path: Path) -> Path:
    """Three rows and a bad one, the quickstart's tokenizer, no validation data."""
    (tmp_path / "recipes").symlink_to(repo_root / "recipes")
    rows = [
        {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": say}]} for ask, say in ROWS
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"wrong": "column"}]))
    lines = [line for line in recipe.read_text().splitlines() if "valid_data_path" not in line]
    text = "\n".join(lines).replace("recipes/quickstart/train.jsonl", "rows.jsonl\n  on_bad_row: skip")
    recipe.write_text(text.partition("\neval:")[0] + "\nlaunch:\n  nproc_per_node: 1\n  device: cpu\n")
    return recipe


def test_prepare_makes_what_a_launch_would_use(run_line, small, tmp_path, monkeypatch):
    done = run_line("sftc data prepare recipe.yaml")
    assert done.returncode == 0, done.stderr
    store = tmp_path / done.stdout.strip()
    assert (store / "data.json").is_file()
    assert done.stderr.splitlines()[-2:] == [
        "train: 1 of 4 rows are left out: no-column 1",
        "quickstart: 3 train samples, prepared",
    ]
    assert "preparing data: 100%, 4 rows" in done.stderr
    again = run_line("sftc data prepare recipe.yaml")
    assert again.stdout == done.stdout
    assert again.stderr.endswith("already prepared\n")

    run_line("sftc compile recipe.yaml -o out")
    monkeypatch.chdir(tmp_path)
    bundle = read_bundle(Path("out"))
    prepared = prepare_run(bundle.value, bundle.path, bundle.digest, lambda *_: None)
    assert (prepared.store, prepared.is_new) == (Path(done.stdout.strip()), False)


def test_a_template_of_the_recipe_gives_the_key_that_its_build_dir_gives(run_line, small, tmp_path, monkeypatch):
    before = run_line("sftc data prepare recipe.yaml").stdout
    config = json.loads((tmp_path / "recipes/quickstart/tokenizer/tokenizer_config.json").read_text())
    (tmp_path / "own.jinja").write_bytes(config["chat_template"].replace("\n", "\r\n").encode() + b"{# own #}\r\n")
    small.write_text(small.read_text().replace("tokenizer:", "tokenizer:\n  chat_template: own.jinja"))
    done = run_line("sftc data prepare recipe.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout != before
    run_line("sftc compile recipe.yaml -o out")
    monkeypatch.chdir(tmp_path)
    bundle = read_bundle(Path("out"))
    prepared = prepare_run(bundle.value, bundle.path, bundle.digest, lambda *_: None)
    assert (str(prepared.store), prepared.is_new) == (done.stdout.strip(), False)


def test_paths_of_the_run_are_looked_up_where_launch_would(run_line, small, tmp_path):
    """Under SFTC_ROOT; the recipe and the page stay where the user is."""
    away = tmp_path / "away"
    away.mkdir()
    done = run_line("sftc data preview ../recipe.yaml --html page.html", cwd=away, SFTC_ROOT=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (away / "page.html").is_file()
    assert (tmp_path / ".sftc/store").is_dir()
    assert run_line("sftc data stats recipe.yaml", SFTC_ROOT="nowhere").returncode == 2


def test_stats_is_a_table_or_json(run_line, small):
    table = run_line("sftc data stats recipe.yaml")
    assert table.returncode == 0, table.stderr
    assert table.stdout.startswith(STATS)
    assert "  rows.jsonl:4: no-column there is no column `messages`" in table.stdout
    numbers = json.loads(run_line("sftc data stats recipe.yaml --format json").stdout)
    train = numbers["splits"]["train"]
    assert (train["rows"], train["kept"], train["dropped"]) == (4, 3, {"no-column": 1})
    assert sum(count for _, _, count in train["length_histogram"]) == 3
    assert sum(count for _, _, count in train["supervised_share_histogram"]) == 3
    assert set(numbers["settings"]) >= {"loss_on", "on_overlong", "on_bad_row", "seq_length"}
    assert set(numbers["rows"]) == {"train"}


def test_stats_say_how_full_the_packs_are(run_line, small):
    """A row of n tokens takes n - 1 positions of its pack."""
    text = small.read_text().replace("  on_bad_row: skip", "  on_bad_row: skip\n  packing: true")
    small.write_text(text.replace("micro_batch_size: 32", "micro_batch_size: 1"))
    done = run_line("sftc data stats recipe.yaml")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.split()[0] == "packs")
    figures = json.loads(run_line("sftc data stats recipe.yaml --format json").stdout)["splits"]["train"]
    assert int(lines[at].split()[1]) == figures["packing"]["packs"]
    used = (figures["tokens"] - figures["kept"]) / (figures["packing"]["packs"] * 96)
    assert lines[at + 1].split() == ["positions", "in", "use", f"{used:.2%}"]


def test_preview_shows_tokens_and_masks(run_line, small):
    done = run_line("sftc data preview recipe.yaml -n 1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == PREVIEW
    third = run_line("sftc data preview recipe.yaml --row 3").stdout
    assert third.count("train sample") == 1
    assert "│What│ does│ 🐱│⋯│⋯│ show│?│<|end|>│⏎│" in third
    assert run_line("sftc data preview recipe.yaml").stdout.count("train sample") == 3


def test_a_terminal_gets_colours_unless_it_asks_for_none(small, tmp_path):
    """A pseudo-terminal of script(1)'s making, by Python's own pty."""
    run = "import pty, sys; sys.exit(pty.spawn([sys.executable, '-m', 'sftc.compiler', *sys.argv[1:]]) >> 8)"
    command = [sys.executable, "-c", run, "data", "preview", "recipe.yaml", "-n", "1"]
    colours = subprocess.run(command, cwd=tmp_path, capture_output=True, stdin=subprocess.DEVNULL)
    assert b"\x1b[38;5;16;48;5;114m trained on " in colours.stdout
    plain = subprocess.run(["env", "NO_COLOR=1", *command], cwd=tmp_path, capture_output=True, stdin=subprocess.DEVNULL)
    assert b"\x1b[38" not in plain.stdout
    assert "│y│ell│ow│<|end|>│⏎│" in plain.stdout.decode()


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("sftc data preview recipe.yaml --row 4", 1, "there is no sample 4 in the train data"),
        ("sftc data preview recipe.yaml --split valid", 1, "there is no `valid` data"),
        ("sftc data preview recipe.yaml -n 0", 2, "-n"),
        ("sftc data preview recipe.yaml --html nowhere/page.html", 1, "nowhere/page.html cannot be written"),
        ("sftc data preview recipe.yaml --html rows.jsonl", 4, "rows.jsonl was not written by sftc"),
        ("sftc data stats missing.yaml", 1, "missing.yaml"),
    ],
)
def test_mistakes_are_told(run_line, small, tmp_path, line, status, said):
    rows = (tmp_path / "rows.jsonl").read_bytes()
    done = run_line(line)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "rows.jsonl").read_bytes() == rows


def test_rows_that_cannot_be_used_are_named_and_nothing_is_stored(run_line, small, tmp_path):
    small.write_text(small.read_text().replace("on_bad_row: skip", "on_bad_row: error"))
    for command in ("prepare", "stats", "preview"):
        done = run_line(f"sftc data {command} recipe.yaml")
        assert (done.returncode, done.stdout) == (1, "")
        assert "rows.jsonl:4: no-column" in done.stderr
        assert "data.on_bad_row" in done.stderr
    assert not list((tmp_path / ".sftc/store").glob("*/data.json"))


def test_an_error_of_the_recipe_comes_first(run_line, small, tmp_path):
    small.write_text(small.read_text().replace("  lr: ", "  finetune_lr: "))
    done = run_line("sftc data prepare recipe.yaml")
    assert done.returncode == 1
    assert "error[SFTC201]: unknown key `finetune_lr`" in done.stderr
    assert not (tmp_path / ".sftc").exists()


def test_without_the_extra_one_sentence_says_so(small, tmp_path):
    """`None` in sys.modules is how Python itself says that a module is not there."""
    light = "import sys; sys.modules['{}'] = None; from sftc.compiler.cli import main; main()"
    for library in ("tokenizers", "numpy"):
        command = [sys.executable, "-c", light.format(library), "data", "stats", "recipe.yaml"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr == (
            f"error: `sftc data` needs the extra `data`, and `{library}` is not installed: pip install 'sftc[data]'\n"
        )


def test_looking_at_data_needs_no_torch(small, tmp_path):
    without = (
        "import sys; sys.modules['torch'] = sys.modules['megatron'] = None; from sftc.compiler.cli import main; main()"
    )
    for command in (["stats"], ["prepare"], ["preview", "--html", "page.html"]):
        words = [sys.executable, "-c", without, "data", *command, "recipe.yaml"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_page_is_the_same_everywhere(run_line, small, repo_root, tmp_path):
    """Another directory, other names for the files' places, another clock zone and hash seed: the same bytes."""
    run_line("sftc data preview recipe.yaml --html page.html", PYTHONHASHSEED="1", TZ="UTC")
    other = tmp_path / "other place"
    other.mkdir()
    (other / "rows.jsonl").write_bytes((tmp_path / "rows.jsonl").read_bytes())
    text = small.read_text().replace("rows.jsonl", str(other / "rows.jsonl"))
    (other / "recipe.yaml").write_text(text.replace("path: recipes", f"path: {repo_root}/recipes"))
    done = run_line("sftc data preview recipe.yaml --html page.html", cwd=other, PYTHONHASHSEED="7", TZ="Asia/Kolkata")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_bytes()
    assert (other / "page.html").read_bytes() == page
    assert str(tmp_path).encode() not in page
    again = run_line("sftc data preview recipe.yaml --html page.html")
    assert again.returncode == 0
    assert again.stderr.splitlines() == ["data.train_data_path: the rows are of the format messages", "wrote page.html"]


def test_markup_in_rows_is_text_in_the_page(run_line, small, tmp_path):
    run_line("sftc data preview recipe.yaml --html page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<script>") == page.count("</script>") == 1
    assert "<b>" not in page
    assert '">&lt;</span>' in page
    for word in ("http://", "https://", "@import", "url(", " src=", "<link"):
        assert word not in page
