"""The examples of the codes: each bad one gets its code, each good one gets no report."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sftc.compiler.codes import CODES
from sftc.compiler.compile import check_recipe
from sftc.compiler.examples import EXAMPLES
from sftc.compiler.loader import load
from sftc.compiler.schemas import leaves
from sftc.compiler.source import SourceFile

ROOT = Path(__file__).resolve().parents[2]
# What an example leaves out is taken from here.
BASE: dict[str, Any] = {
    "name": "my-run",
    "task": {"is_instruction_dataset": True},
    "model": {
        "num_layers": 8,
        "hidden_size": 1024,
        "ffn_hidden_size": 4096,
        "num_attention_heads": 16,
        "num_query_groups": 4,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
        "init": "random",
    },
    "tokenizer": {"path": "tokenizer"},
    "data": {"train_data_path": "data/train.jsonl"},
    "train": {"train_iters": 1000, "global_batch_size": 64, "seq_length": 4096, "lr": 1e-5},
    "launch": {"nproc_per_node": 8},
}
# What the example of an import leaves out.
GIVEN = {
    "name": "my-run",
    **{f"model.{key}": value for key, value in BASE["model"].items()},
    "tokenizer.path": "tokenizer",
    "data.train_data_path": "data/train.jsonl",
    **{f"train.{key}": value for key, value in BASE["train"].items() if key != "lr"},
    "launch.nproc_per_node": 8,
}
COMPLETE = {"SFTC710"}
SIZES = [f"/model/{key}" for key in BASE["model"] if key != "init"]
# What an example leaves out on purpose.
LEFT_OUT = {
    "SFTC207": ["/train/lr"],
    "SFTC209": ["/data/train_data_path"],
    "SFTC301": ["/task"],
    "SFTC303": ["/task/is_instruction_dataset"],
    "SFTC304": ["/task/is_instruction_dataset"],
    "SFTC408": SIZES,
    "SFTC409": SIZES,
    "SFTC437": ["/data/train_data_path"],
    "SFTC438": ["/data/train_data_path"],
    "SFTC441": ["/model/init"],
    "SFTC442": ["/model/init"],
    "SFTC444": ["/model/init"],
    "SFTC445": ["/model/init"],
    "SFTC446": ["/model/init"],
    "SFTC447": ["/model/init"],
    "SFTC481": SIZES,
}
CONFIG = {
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 8,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}
# It takes a key of alternative forms, and the schema has none.
WITHOUT = {"SFTC210"}
IN_A_SHELL = {code for code, example in EXAMPLES.items() if example.bad.startswith("$ ")}


def test_every_code_has_an_example() -> None:
    assert set(CODES) - set(EXAMPLES) == WITHOUT
    assert set(EXAMPLES) <= set(CODES)
    assert not [key for key, schema in leaves() if {"anyOf", "oneOf"} & set(schema)], "SFTC210 can be shown now"


def whole(snippet: str, code: str) -> str:
    """A recipe, as JSON, of which `snippet` is a part."""
    document, found = load(SourceFile(name="snippet", text=snippet, sha256=""))
    assert document is not None, found
    recipe = json.loads(json.dumps(BASE))
    for pointer in LEFT_OUT.get(code, []):
        section, _, key = pointer[1:].partition("/")
        _ = recipe[section].pop(key) if key else recipe.pop(section)
    for name, value in document.data.items():
        recipe[name] = {**recipe.get(name, {}), **value} if isinstance(value, dict) else value
    return json.dumps(recipe)


def codes(path: Path, text: str) -> list[str]:
    path.write_text(text, encoding="utf-8")
    return [item.code for item in check_recipe(path, path.name).diagnostics]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with what the examples name."""
    return furnished(tmp_path)


def furnished(folder: Path) -> Path:
    quickstart = ROOT / "recipes/quickstart"
    shutil.copytree(quickstart / "tokenizer", folder / "tokenizer")
    for name, content in {
        "recipes/quickstart.yaml": json.dumps(BASE),
        "models/llama/config.json": json.dumps(CONFIG),
        "models/gemma/config.json": json.dumps({**CONFIG, "model_type": "gemma3_text"}),
        "data/train.jsonl": (quickstart / "train.jsonl").read_text(encoding="utf-8"),
        "data/better.jsonl": (quickstart / "valid.jsonl").read_text(encoding="utf-8"),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def test_the_base_is_a_good_recipe(tmp_path: Path) -> None:
    assert codes(tmp_path / "r.yaml", json.dumps(BASE)) == []


@pytest.mark.parametrize("code", [code for code in EXAMPLES if code not in IN_A_SHELL])
def test_the_bad_one_gets_the_code_and_the_good_one_none(code: str, place: Path) -> None:
    path, example = place / "r.yaml", EXAMPLES[code]
    bad = example.bad if code < "SFTC2" else whole(example.bad, code)
    assert code in codes(path, bad)
    assert code < "SFTC2" or set(codes(path, bad)) == {code}
    assert codes(path, whole(example.good, code)) == []


def script(example: str, code: str) -> str:
    """The lines to type, and a file for each `$ cat`."""
    given = [] if code in COMPLETE else [f"{key}={value}" for key, value in GIVEN.items()]
    more = " ".join(f"--set {shlex.quote(one)}" for one in given)
    python = f"{shlex.quote(sys.executable)} -m sftc.compiler"
    lines = [f'sftc() {{ if [ "$1" = import ]; then {python} "$@" {more}; else {python} "$@"; fi; }}']
    for block in re.split(r"^\$ ", example, flags=re.MULTILINE)[1:]:
        typed, _, shown = block.partition("\n")
        if typed.startswith("cat "):
            lines.append(f"printf %s {shlex.quote(shown)} > {typed.removeprefix('cat ')}")
        else:
            assert not shown, "only a file has lines below it"
            lines.append(typed)
    return "\n".join(lines)


@pytest.mark.parametrize("code", sorted(IN_A_SHELL))
def test_typed_examples(code: str, tmp_path: Path) -> None:
    """As they stand, each in a directory of its own."""
    found = {}
    bash = shutil.which("bash")
    assert bash
    for kind in ("bad", "good"):
        (tmp_path / kind).mkdir()
        command = [bash, "-c", script(getattr(EXAMPLES[code], kind), code)]
        env = {**os.environ, "PYTHONSAFEPATH": "1"}
        done = subprocess.run(command, cwd=furnished(tmp_path / kind), env=env, capture_output=True, text=True)
        found[kind] = set(re.findall(r"^(?:error|warning)\[(\w+)\]", done.stdout + done.stderr, re.MULTILINE))
        assert "Traceback" not in done.stderr
        # The good recipe of 1xx may be a name only, and incomplete.
        assert kind == "bad" or code < "SFTC2" or done.returncode == 0, done.stderr
    assert code in found["bad"]
    assert code not in found["good"]
    if code > "SFTC2":
        assert found == {"bad": {code}, "good": set()}
