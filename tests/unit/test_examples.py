"""The examples of the codes: each bad one gets its code, each good one gets no report."""

import json
import os
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
# What an example leaves out on purpose.
LEFT_OUT = {
    "SFTC207": ["/train/lr"],
    "SFTC209": ["/data/train_data_path"],
    "SFTC301": ["/task"],
    "SFTC303": ["/task/is_instruction_dataset"],
    "SFTC304": ["/task/is_instruction_dataset"],
    "SFTC437": ["/data/train_data_path"],
    "SFTC438": ["/data/train_data_path"],
    "SFTC441": ["/model/init"],
    "SFTC442": ["/model/init"],
    "SFTC444": ["/model/init"],
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


def test_the_base_is_a_good_recipe(tmp_path: Path) -> None:
    assert codes(tmp_path / "r.yaml", json.dumps(BASE)) == []


@pytest.mark.parametrize("code", [code for code in EXAMPLES if code not in IN_A_SHELL])
def test_the_bad_one_gets_the_code_and_the_good_one_none(code: str, tmp_path: Path) -> None:
    path, example = tmp_path / "r.yaml", EXAMPLES[code]
    bad = example.bad if code < "SFTC2" else whole(example.bad, code)
    assert code in codes(path, bad)
    assert code < "SFTC2" or set(codes(path, bad)) == {code}
    assert codes(path, whole(example.good, code)) == []


@pytest.mark.parametrize("code", sorted(IN_A_SHELL))
def test_typed_examples(code: str, tmp_path: Path) -> None:
    """As they stand, in a directory of their own; a recipe that is only a name is incomplete, and read."""
    results = {}
    for kind in ("bad", "good"):
        folder = tmp_path / kind
        (folder / "recipes").mkdir(parents=True)
        (folder / "recipes/quickstart.yaml").write_text(json.dumps(BASE))
        script = "\n".join(line.removeprefix("$ ") for line in getattr(EXAMPLES[code], kind).splitlines())
        python = shlex.quote(sys.executable)
        script = f'sftc() {{ {python} -m sftc.compiler "$@"; }}\n{script}'
        env = {**os.environ, "PYTHONSAFEPATH": "1"}
        bash = shutil.which("bash")
        assert bash
        done = subprocess.run([bash, "-c", script], cwd=folder, env=env, capture_output=True, text=True)
        results[kind] = done.stdout + done.stderr
    assert f"error[{code}]" in results["bad"]
    assert f"[{code}]" not in results["good"]
    assert "Traceback" not in results["good"]
