"""`sftc import` as a command: streams, files, exit codes."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sftc.compiler.cli import cli

OPTIONS = (Path(__file__).parent / "megatron/options.args").read_text()
WORDS = ["--task", "pretrain", "--set", "launch.nproc_per_node=1", "--set", "tokenizer.path=t"]
ROWS = ["--set", "data.train_data_path=rows"]


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("options.args").write_text(OPTIONS)


def run(*words: str, text: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["import", *words], input=text)


def test_standard_input_to_standard_output() -> None:
    done = run("megatron", "-", *WORDS, *ROWS, text=OPTIONS)
    assert done.exit_code == 0
    assert done.stdout.startswith("# yaml-language-server: $schema=")
    assert "name: stdin" in done.stdout
    assert "settings: " in done.stderr


def test_nothing_is_written_where_errors_remain() -> None:
    done = run("megatron", "options.args", *WORDS, "-o", "recipe.yaml")
    assert (done.exit_code, done.stdout) == (1, "")
    assert not Path("recipe.yaml").exists()
    assert "--set data.train_data_path=" in done.stderr
    assert "take what there is with --draft" in done.stderr


def test_a_draft_is_written_and_the_exit_code_says_that_it_is_one() -> None:
    done = run("megatron", "options.args", *WORDS, "-o", "recipe.yaml", "--draft")
    assert done.exit_code == 1
    assert "# train_data_path: is missing" in Path("recipe.yaml").read_text()


def test_a_file_that_is_there_stays() -> None:
    Path("recipe.yaml").write_text("mine\n")
    done = run("megatron", "options.args", *WORDS, *ROWS, "-o", "recipe.yaml")
    assert (done.exit_code, Path("recipe.yaml").read_text()) == (4, "mine\n")
    assert "SFTC601" in done.stderr
    done = run("megatron", "options.args", *WORDS, *ROWS, "-o", "recipe.yaml", "--force")
    assert (done.exit_code, done.stdout) == (0, "")
    assert Path("recipe.yaml").read_text() != "mine\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "train.lr"], "no KEY=VALUE"),
        (["--set", "train.learning=1"], "no key `train.learning`"),
        (["--set", "train.lrr=1"], "did you mean `train.lr`?"),
        (["--env", "A"], "no VARIABLE=VALUE"),
        (["--task", "rl"], "'rl'"),
    ],
)
def test_a_bad_command_line(words: list[str], message: str) -> None:
    done = run("megatron", "options.args", *words)
    assert done.exit_code == 2
    assert message in done.stderr


@pytest.mark.parametrize("tool", ["primus", "megatron"])
def test_a_file_that_is_missing(tool: str) -> None:
    done = run(tool, "gone")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "error[SFTC101]: there is no file `gone`" in done.stderr


def test_the_environment_is_never_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIZE", "7")
    Path("run.sh").write_text("torchrun a.py --micro-batch-size ${SIZE:-3} --num-layers $SIZE\n")
    done = run("megatron", "run.sh", "--draft")
    assert "micro_batch_size: 3" in done.stdout
    assert "`SIZE` has no value in the script" in done.stderr
    given = run("megatron", "run.sh", "--draft", "--env", "SIZE=7")
    assert "micro_batch_size: 7" in given.stdout
    assert "num_layers: 7" in given.stdout


def test_weights_of_an_unknown_place_are_not_random_ones() -> None:
    Path("run.sh").write_text("torchrun a.py --load $WHERE --num-layers 2\n")
    done = run("megatron", "run.sh", "--draft", "--task", "pretrain")
    assert "init: random" not in done.stdout
    assert "model.load" not in done.stderr
    Path("run.sh").write_text("torchrun a.py --num-layers 2\n")
    assert "init: random" in run("megatron", "run.sh", "--draft", "--task", "pretrain").stdout
