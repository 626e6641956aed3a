"""The raw options of a preset mean the model: shrunk, Megatron computes with them what transformers does."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from sftc.compiler.cli import cli

pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("megatron") is None, reason="needs megatron-core[training]"),
]
SMALL = {
    "num_layers": 4,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "num_experts": 4,
    "moe_router_topk": 2,
    "moe_ffn_hidden_size": 24,
    "make_vocab_size_divisible_by": 1,
}
# Sizes only: what is left of the preset decides what is computed.
SHRUNK: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "deepseek-v2-lite": (
        {"num_query_groups": 4, "ffn_hidden_size": 64},
        {
            "kv_lora_rank": 16,
            "qk_head_dim": 8,
            "qk_pos_emb_head_dim": 16,
            "v_head_dim": 12,
            "moe_layer_freq": "([0]+[1]*3)",
            "moe_shared_expert_intermediate_size": 48,
        },
    ),
    "gpt-oss-20b": (
        {"num_query_groups": 2, "kv_channels": 16, "ffn_hidden_size": 24},
        {"window_size": "7,0"},
    ),
}


def arguments(folder: Path, name: str) -> Path:
    """The argument file of the shrunk preset."""
    model, args = SHRUNK[name]
    recipe = {
        "name": "shrunk",
        "task": {"is_sft": True},
        "model": {"preset": name, "init": "random", **SMALL, **model},
        "tokenizer": {"path": "tokenizer"},
        "data": {"train_data_path": "train.jsonl"},
        "train": {"train_iters": 1, "global_batch_size": 1, "seq_length": 32, "precision": "fp32", "lr": 1e-5},
        "launch": {"nproc_per_node": 1},
        "megatron": {"args": args},
    }
    with (folder / f"{name}.yaml").open("w") as file:
        YAML().dump(recipe, file)
    ended = CliRunner().invoke(cli, ["compile", str(folder / f"{name}.yaml"), "-o", str(folder / name)])
    assert ended.exit_code == 0, ended.output
    return folder / name / "megatron.args"


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    folder = tmp_path_factory.mktemp("presets")
    script = Path(__file__).with_name("preset_logits.py")
    files = [arguments(folder, name) for name in SHRUNK]
    done = subprocess.run([sys.executable, script, *files], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", SHRUNK)
def test_megatron_computes_what_transformers_does(compared: dict[str, list[float]], name: str) -> None:
    difference, deviation = compared[name]
    assert deviation > 0.3, "or agreement means little"
    assert difference < 1e-4 * max(1.0, deviation)
