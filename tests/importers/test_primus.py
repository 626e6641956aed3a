"""What must not happen with a configuration of Primus, said one by one."""

import re
from pathlib import Path

import pytest

from sftc.compiler.importers import presets
from sftc.compiler.importers.finish import Imported
from sftc.compiler.importers.ledger import Entry, Fate
from sftc.compiler.importers.placeholders import expand
from sftc.compiler.importers.primus import import_primus
from sftc.compiler.importers.request import Request
from sftc.compiler.schemas import recipe_schema

FLAG = "is_instruction_dataset: true"


def experiment(tmp_path: Path, overrides: str, *, module: str = "post_trainer", head: str = "", root: str = "") -> Path:
    lines = [root, "modules:", f"  {module}:", "    framework: megatron", head and f"    {head}", "    overrides:"]
    lines += [f"      {line}" for line in overrides.split("\n")]
    path = tmp_path / "experiment.yaml"
    path.write_text("\n".join(line for line in lines if line) + "\n")
    return path


def imported(path: Path, **words: object) -> Imported:
    return import_primus(path, path.name, Request(**words))  # type: ignore[arg-type]


def codes(done: Imported) -> set[str]:
    return {one.code for one in done.diagnostics}


def entry(done: Imported, name: str) -> Entry:
    (found,) = [one for one in done.entries if one.setting.name == name]
    return found


def values(done: Imported) -> str:
    """The recipe without comments."""
    return re.sub(r"(^|\s)#.*", "", done.text, flags=re.MULTILINE)


@pytest.mark.parametrize("line", [FLAG, "is_sft: true", "stage: sft"])
def test_each_marker_says_sft_and_is_named(tmp_path: Path, line: str) -> None:
    done = imported(experiment(tmp_path, line))
    assert f"{FLAG} # line 5: {line}" in done.text
    assert "SFTC703" not in codes(done)


@pytest.mark.parametrize(
    "line", ["finetune_lr: 1.0e-5", "finetune: true", "sft_dataset_name: a/sft", "train_data_path: sft.jsonl"]
)
def test_nothing_else_says_it(tmp_path: Path, line: str) -> None:
    done = imported(experiment(tmp_path, line))
    assert FLAG not in done.text
    assert "SFTC703" in codes(done)


def test_the_name_of_a_preset_does_not_say_it(tmp_path: Path) -> None:
    done = imported(experiment(tmp_path, "lr: 1.0e-5", head="config: sft_trainer.yaml"))
    assert FLAG not in done.text
    assert "SFTC703" in codes(done)


@pytest.mark.parametrize(
    ("module", "line", "task"),
    [
        ("pre_trainer", FLAG, None),
        ("pre_trainer", "lr: 1.0e-5", "sft"),
        ("pre_trainer", "stage: sft", None),
        ("post_trainer", "stage: pretrain", "sft"),
        ("post_trainer", "is_sft: false\nis_instruction_dataset: true", None),
        ("post_trainer", FLAG, "pretrain"),
    ],
)
def test_contradictions_are_not_settled(tmp_path: Path, module: str, line: str, task: str | None) -> None:
    done = imported(experiment(tmp_path, line, module=module), task=task)
    assert "SFTC704" in codes(done)
    assert "task:" not in values(done)


def test_pretraining_stays_pretraining_and_is_said_aloud(tmp_path: Path) -> None:
    done = imported(experiment(tmp_path, "finetune_lr: 1.0e-5\nfinetune: true", module="pre_trainer"))
    assert "kind: pretrain # modules.pre_trainer" in done.text
    assert FLAG not in done.text


def test_a_marker_in_the_wrong_place_counts_for_nothing(tmp_path: Path) -> None:
    done = imported(experiment(tmp_path, "lr: 1.0e-5", head=FLAG, root=FLAG))
    assert FLAG not in values(done)
    assert {"SFTC703", "SFTC707"} <= codes(done)


@pytest.mark.parametrize("where", ["head", "root"])
def test_a_misplaced_value_is_pointed_out_and_never_taken(tmp_path: Path, where: str) -> None:
    done = imported(experiment(tmp_path, "stage: sft\nlr: 1.0e-5", **{where: "lr: 3.0e-4"}))  # type: ignore[arg-type]
    assert "lr: 1.0e-5" in values(done)
    assert "3.0e-4" not in values(done)
    assert "SFTC707" in codes(done)
    alone = imported(experiment(tmp_path, "stage: sft", **{where: "lr: 3.0e-4"}))  # type: ignore[arg-type]
    assert "3.0e-4" not in values(alone)


def test_adapters_are_taken_over_unless_they_are_off(tmp_path: Path) -> None:
    block = "\n  dim: 8\n  alpha: 16\n  dropout: 0.1\n  dropout_position: pre\n  target_modules: [linear_qkv]"
    on = imported(experiment(tmp_path, f"stage: sft\nlora:\n  enabled: true{block}"))
    off = imported(experiment(tmp_path, f"stage: sft\nlora:\n  enabled: false{block}"))
    for name, key, value in (("dim", "rank", "8"), ("alpha", "alpha", "16"), ("dropout", "dropout", "0.1")):
        assert entry(on, f"lora.{name}").key == f"lora.{key}"
        assert f"  {key}: {value}" in values(on)
        assert entry(off, f"lora.{name}").fate is Fate.EMPTY
    assert '  targets: ["linear_qkv"]' in values(on)
    assert entry(on, "lora.dropout_position").fate is Fate.EMPTY
    assert "lora:" not in values(off)


def test_adapters_without_a_rank_are_asked_for_one(tmp_path: Path) -> None:
    assert "SFTC710" in codes(imported(experiment(tmp_path, "stage: sft\npeft: lora")))
    assert "SFTC702" in codes(imported(experiment(tmp_path, "stage: sft\npeft: dora")))


@pytest.mark.parametrize(("method", "fate"), [("kaiming", Fate.EMPTY), ("xavier", Fate.UNMAPPED)])
def test_how_adapters_begin_is_told_where_it_is_another_way(tmp_path: Path, method: str, fate: Fate) -> None:
    done = imported(experiment(tmp_path, f"stage: sft\nlora:\n  dim: 8\n  lora_A_init_method: {method}"))
    assert [one.fate for one in done.entries if one.setting.dest == "lora.lora_A_init_method"] == [fate]


@pytest.mark.parametrize(
    ("lines", "alpha"),
    [
        ("  dim: 8", "alpha: 32"),
        ("  dim: 8\n  alpha: 16", "alpha: 16"),
        ("  dim: 32", None),  # where no line is needed
        ("  dim: 8\n  enabled: false", None),
    ],
)
def test_an_alpha_that_is_not_said_is_that_of_the_source(tmp_path: Path, lines: str, alpha: str | None) -> None:
    """Which is no share of the rank, as it is here."""
    said = values(imported(experiment(tmp_path, f"stage: sft\nlora:\n{lines}")))
    assert alpha in said if alpha else "alpha" not in said


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("learning_rate: 1.0e-5", "train.lr", "lr: 1.0e-5"),
        ("norm_epsilon: 1.0e-6", "model.norm_epsilon", "norm_epsilon: 1.0e-6"),
        ("train_data_path: [0.3, a, 0.7, b]", "data.sources", '{"path": "b", "weight": 0.7}'),
        ("train_data_path: a b", "data.sources", '[{"path": "a"}, {"path": "b"}]'),
        ("fp16: true", "train.precision", "precision: fp16"),
        ("enable_fused_linear_ce: true", "train.fused_linear_cross_entropy", "fused_linear_cross_entropy: true"),
        ("use_rotary_position_embeddings: true", "model.position_embedding_type", "position_embedding_type: rope"),
        ("apply_rope_fusion: false", "megatron.args.no_rope_fusion", "no_rope_fusion: true"),
        ("manual_gc_interval: 5", "megatron.args.manual_gc_interval", "manual_gc_interval: 5"),
    ],
)
def test_where_a_setting_goes(tmp_path: Path, line: str, key: str, value: str) -> None:
    done = imported(experiment(tmp_path, f"stage: sft\n{line}"))
    assert entry(done, line.split(":")[0]).key == key
    assert value in values(done)


@pytest.mark.parametrize(
    ("text", "given", "value", "missing"),
    [
        ("${A:4096}", {}, 4096, ()),
        ("${A:4096}", {"A": "8"}, 8, ()),
        ("${A:1.0e-5}", {}, 1e-5, ()),
        ("${A:}", {}, None, ()),
        ("${A}", {}, "${A}", ("A",)),
        ("${A}/x/${B:y}", {"A": "a"}, "a/x/y", ()),
        ("$A {A}", {"A": "a"}, "$A {A}", ()),
    ],
)
def test_placeholders(text: str, given: dict[str, str], value: object, missing: tuple[str, ...]) -> None:
    expanded = expand(text, given)
    assert (expanded.value, expanded.missing) == (value, missing)


def test_a_file_that_builds_on_itself_is_an_error(tmp_path: Path) -> None:
    path = experiment(tmp_path, "stage: sft", root="extends: [experiment.yaml]")
    assert "SFTC706" in codes(imported(path))


def test_a_checkout_around_the_configuration_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "primus/configs/models/megatron"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text("num_layers: 3\n")
    below = tmp_path / "examples/configs"
    below.mkdir(parents=True)
    done = imported(experiment(below, "stage: sft", head="model: tiny"))
    assert "num_layers: 3 # tiny.yaml line 1" in done.text


def test_a_model_that_recipes_know_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where recipes have presets, and the source's own file of that model is not there."""
    known = {"type": ["string", "null"], "enum": ["llama-2-7b", "mixtral-8x7b", None], "title": "Preset"}
    monkeypatch.setitem(recipe_schema()["properties"]["model"]["properties"], "preset", known)
    assert presets.model_preset("llama2_7B.yaml") == "llama-2-7b"
    assert presets.model_preset("mixtral_8x7B_v0.1") == "mixtral-8x7b"
    assert presets.model_preset("llama2_70B.yaml") is None
    done = imported(experiment(tmp_path, "stage: sft", head="model: llama2_7B.yaml"))
    assert "preset: llama-2-7b # line 4: model: llama2_7B.yaml" in done.text
    assert "num_layers" not in done.text


def test_two_names_of_one_option_are_both_accounted_for(tmp_path: Path) -> None:
    done = imported(experiment(tmp_path, "norm_epsilon: 1.0e-5\nlayernorm_epsilon: 1.0e-6"))
    assert "SFTC705" in codes(done)
    assert {"norm_epsilon", "layernorm_epsilon"} <= {one.setting.name for one in done.entries}
