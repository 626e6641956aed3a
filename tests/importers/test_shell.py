"""Scripts are read as bash reads them, and nothing in them runs."""

import shutil
import subprocess
from pathlib import Path

import pytest

from sftc.compiler.importers.expansion import UNKNOWN
from sftc.compiler.importers.script import Script, read_script
from sftc.compiler.importers.shell_words import ShellError

# Each is the words behind `show`, which bash prints one to a line, and which the reader must find.
WORDS = (
    "show --lr 1e-5",
    "show --a 'b c' \"d e\" f\\ g",
    "show a'b'\"c\"d ''",
    "X=3; show $X ${X} \"$X\" '$X' $X$X",
    "X='a b'; show $X \"$X\" pre$X",
    'X=; show $X "$X" end',
    "A=(1 '2 3' 4); show ${A[@]} end; ",
    'A=(1 \'2 3\' 4); show "${A[@]}" "${A[*]}"',
    "A=(1); A+=(2 3); show ${A[@]} ${A[1]} $A",
    'A=(); show ${A[@]} "${A[@]}" end',
    "A=(--x 1\n  # --y 2\n  --z 3 # last\n); show ${A[@]}",
    "A=('--x 1' '--y 2'); show ${A[@]}",
    "show ${GONE:-default} ${GONE-'a b'} \"${GONE:-a b}\"",
    "X=x; show ${X:+yes} ${GONE:+no} end",
    "E=; show ${E:-empty} ${E-set} end",
    "X=2; show $((X * 3 + 1)) $(($X-5)) $((7 / 2)) $((-7/2)) $((7 % 4))",
    "X=a; X+=b; show $X",
    "show a \\\n  b \\\n  c",
    'S="--x 1 \\\n --y 2\n --z 3"; show $S',
    "export Y=1 && show $Y",
    "cat > /dev/null <<EOF\n show no\nEOF\nshow yes",
    "show a#b #c",
    "f() {\n  X=1\n}\nshow f",
    "show a > /dev/null; show b 2>&1",
    'set -e; show "\\$x \\"q\\" \\\\"',
    "readonly R=5; declare D=6; show $R $D",
)


def shown(text: str) -> list[str]:
    """The reader's words: `show` is made an option, so that they are a plain list of options."""
    script = read_script(text.replace("show", "--show"), {})
    return [word.text for word in script.bare if word.text != "--show"]


@pytest.mark.parametrize("text", WORDS)
def test_words_are_those_of_bash(text: str) -> None:
    bash = shutil.which("bash")
    assert bash
    # Words are told apart by a byte that none of them holds; what is redirected is shown all the same.
    prelude = 'exec 3>&1; show() { for word in "$@"; do printf \'%s\\x01\' "$word" >&3; done; }\n'
    done = subprocess.run([bash, "-c", prelude + text], capture_output=True, text=True, check=True)
    assert shown(text) == done.stdout.split("\x01")[:-1]


def command(text: str, **given: str) -> tuple[Script, list[str]]:
    script = read_script(text, given)
    assert len(script.commands) == 1
    return script, [word.text for word in script.commands[0].words]


@pytest.mark.parametrize(
    ("before", "used"),
    [
        ("X=$(rm -rf /tmp/never)", "$X"),
        ("X=`date`", "$X"),
        ("if true; then X=1; fi", "$X"),
        ("for X in 1 2; do :; done", "$X"),
        ("while read X; do :; done", "$X"),
        ("case $Y in a) X=1 ;; esac", "$X"),
        ("X=1; if true; then X=2; fi", "$X"),
        ("X=1; [ -f a ] && X=2", "$X"),
        ("X=1; test -f a || X=2", "$X"),
        ("read X", "$X"),
        ("X=1; unset X", "$X"),
        ("X=(1); if true; then X+=(2); fi", "${X[@]}"),
        ("X=abc", "${X%c}"),
        ("X=abc", "${#X}"),
        ("X=a", "$((X + 1))"),
        (":", "$X"),
    ],
)
def test_what_only_running_would_tell_is_unknown(before: str, used: str) -> None:
    script, words = command(f"{before}\ntorchrun a.py --save {used}")
    assert words[-1] == UNKNOWN
    assert script.scope.unknown


def test_a_given_value_goes_before_the_scripts_own() -> None:
    text = 'A=(--x 1)\nif true; then A+=(--y 2); fi\ntorchrun a.py "${A[@]}" $B $1'
    assert command(text, A="--z '3 4'", B="5 6", **{"1": "7"})[1][2:] == ["--z", "3 4", "5", "6", "7"]


@pytest.mark.parametrize(
    "text",
    [
        "torchrun --nproc_per_node 2 pretrain_gpt.py --lr 1",
        "exec torchrun pretrain_gpt.py --lr 1",
        "OMP_NUM_THREADS=1 torchrun pretrain_gpt.py --lr 1",
        "python -m torch.distributed.run pretrain_gpt.py --lr 1",
        "python3 -u -m torch.distributed.launch pretrain_gpt.py --lr 1",
        "srun --ntasks 1 /opt/bin/torchrun pretrain_gpt.py --lr 1",
        "python pretrain_gpt.py --num-layers 1 --lr 1",
        "CMD='torchrun pretrain_gpt.py --lr 1'; $CMD",
        "CMD='torchrun pretrain_gpt.py --lr 1'; eval $CMD",
        "run() {\n torchrun pretrain_gpt.py --lr 1\n}\nrun",
        "mkdir -p a && cd a && torchrun pretrain_gpt.py --lr 1 | tee log",
    ],
)
def test_the_command_that_starts_megatron_is_found(text: str) -> None:
    assert command(text)[1][-2:] == ["--lr", "1"]


@pytest.mark.parametrize("text", ["torchrun 'a", 'torchrun "a', "torchrun `a", "torchrun ${A", "torchrun $(a"])
def test_what_is_never_closed_is_an_error(text: str) -> None:
    with pytest.raises(ShellError, match="is not closed"):
        read_script(text, {})


def test_nothing_runs(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    read_script(f"X=$(touch {touched}); `touch {touched}`; eval touch {touched}; echo $((1+1)) > {touched}", {})
    assert not touched.exists()


def test_an_exported_variable_reaches_the_ranks() -> None:
    script = read_script("export A=1 B='2 3'\nC=4\nexport C\nD=5\nE=6 torchrun a.py", {})
    assert {name: word.text for name, word in script.exported.items()} == {"A": "1", "B": "2 3", "C": "4", "E": "6"}
