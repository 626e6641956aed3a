"""From plan to arguments: every option exists, every raw one is checked, and each key says what it means."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftc.compiler import megatron
from sftc.compiler.compile import Checked, artifacts, check_recipe
from sftc.compiler.diagnostics import Severity
from sftc.compiler.options import managed_options, option_table, problem
from sftc.compiler.plan import Argument, Plan
from sftc.compiler.schemas import leaves, load_schema
from sftc.compiler.targets import check_keys, missing, targets

ROOT = Path(__file__).resolve().parents[2]
RECIPES = [*sorted(ROOT.glob("recipes/**/*.yaml")), *sorted(ROOT.glob("tests/golden/cases/*.yaml"))]
TARGETS = targets()
NEWEST = option_table(TARGETS[-1])
# Recipes that ask another target for what it cannot: YaRN's options came with 0.19, as a kind of positions with 0.18;
# one case names an option that later targets call otherwise.
OF_ONE_TARGET = {
    ("gpt-oss-20b", "0.17"): {"SFTC501", "SFTC503"},
    ("gpt-oss-20b", "0.18"): {"SFTC501"},
    ("older-target", "0.18"): {"SFTC501"},
    ("older-target", "0.19"): {"SFTC501"},
}
# Options whose default is not the same in every target, and why no recipe's training changes with it.
DRIFTED_DEFAULTS = {
    "--cuda-graph-scope": "another spelling of `--cuda-graph-modules` from 0.18 on; neither asks for anything",
    "--data-parallel-sharding-strategy": "read with `--use-megatron-fsdp` only",
    "--disable-msc": "storage in a cloud, with a library that has to be installed for it",
    "--inference-dynamic-batching-prefix-caching-coordinator-policy": "inference",
    "--inference-grouped-gemm-backend": "inference",
    "--moe-deepep-num-sms": "how many multiprocessors move tokens, not which",
}


def quickstart(tmp_path: Path, **replaced: str) -> Checked:
    """The quickstart with lines replaced: `old="new"` where old is the start of a line's key."""
    lines = (ROOT / "recipes/quickstart/recipe.yaml").read_text().splitlines()
    for key, value in replaced.items():
        index = next(number for number, line in enumerate(lines) if line.strip().startswith(f"{key}:"))
        lines[index] = lines[index].partition(key)[0] + value
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("\n".join(lines) + "\n")
    return check_recipe(recipe, "recipe.yaml")


def options(checked: Checked) -> dict[str, Argument]:
    assert checked.plan is not None, checked.diagnostics
    return {argument.option: argument for argument in checked.plan.arguments}


def retargeted(plan: Plan, target: str) -> Plan:
    """The same recipe with another `megatron.target` and no `megatron.args`, which may be of one target alone."""
    values = {**plan.values}
    for key, value in (("megatron.target", target), ("megatron.args", {})):
        values[key] = replace(values[key], value=value)
    return megatron.arguments(replace(plan, values=values))


@pytest.mark.parametrize("target", TARGETS)
def test_every_option_that_the_schema_names_exists_in_every_target(target: str) -> None:
    """A key whose option came later is refused for older targets, which this test should then say."""
    named = [
        option
        for _, schema in leaves()
        for option in (
            schema.get("x-megatron"),
            schema.get("x-megatron-false"),
            *schema.get("x-megatron-cases", {}).values(),
        )
        if option
    ]
    assert len(named) > 50
    assert [option for option in named if option not in option_table(target)] == []


def test_options_that_sftc_answers_for_exist() -> None:
    assert [option for option in managed_options() if option not in NEWEST] == []


@pytest.mark.parametrize("target", TARGETS)
def test_defaults_and_choices_of_the_schema_suit_the_option(target: str) -> None:
    for key, schema in leaves():
        option = option_table(target).get(schema.get("x-megatron", ""))
        if option is None or option.is_flag:
            continue
        # What only a newer target takes is refused for an older one: `check_keys`.
        choices = schema.get("enum", []) if target == TARGETS[-1] else []
        for value in [schema.get("default"), *schema["examples"], *choices]:
            if value is not None:
                assert problem(option, key, (value,)) is None


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_target_has_every_emitted_option(recipe: Path, target: str) -> None:
    told = check_recipe(recipe, recipe.name, (f'megatron.target="{target}"',), locked=False).diagnostics
    refused = {item.code for item in told if item.severity is Severity.ERROR}
    assert refused == OF_ONE_TARGET.get((recipe.stem, target), set())
    if "SFTC503" in refused:
        return
    checked = check_recipe(recipe, recipe.name)
    assert checked.plan is not None
    plan = retargeted(checked.plan, target)
    assert len(plan.arguments) > 40
    for argument in (*plan.arguments, *plan.cpu_arguments):
        option = option_table(target)[argument.option]
        assert bool(argument.values) != option.is_flag
        assert option.choices is None or set(argument.values) <= {str(choice) for choice in option.choices}


def test_defaults_that_drifted_are_known_to_change_no_training() -> None:
    """An option that is not in this table and not emitted means the same in every target."""
    rows = [{s: row for row in load_schema(f"megatron/{t}.json")["options"] for s in row["strings"]} for t in TARGETS]
    drifted = {
        name
        for name in set.union(*map(set, rows))
        if len({repr(table[name]["default"]) for table in rows if name in table}) > 1
    }
    assert drifted == set(DRIFTED_DEFAULTS)


def test_the_vocabulary_is_padded_alike_in_every_target(tmp_path: Path) -> None:
    """Left alone, 0.17 counts an end-of-document token more: a vocabulary of 512 would become one of 640."""
    plan = quickstart(tmp_path, vocab_size="vocab_size: 512\n  make_vocab_size_divisible_by: 128").plan
    assert plan is not None
    padded = {item.option: item.values for item in retargeted(plan, "0.17").arguments}["--padded-vocab-size"]
    assert padded == ("512",)
    for vocab, ranks, rows in ((513, 1, 640), (50257, 2, 50432), (50432, 2, 50432)):
        values = {**plan.values}
        for key, value in (("model.vocab_size", vocab), ("parallel.tensor_model_parallel_size", ranks)):
            values[key] = replace(values[key], value=value)
        changed = retargeted(replace(plan, values=values), "0.17")
        assert {item.option: item.values for item in changed.arguments}["--padded-vocab-size"] == (str(rows),)


@pytest.mark.parametrize(
    ("target", "option", "message", "help"),
    [
        ("0.19", "--use-legacy-models", "0.17 has it", 'leave it out, or set `megatron.target: "0.17"`'),
        ("0.17", "--validation-set-names", "0.18 and 0.19 have it", 'leave it out, or set `megatron.target: "0.19"`'),
        ("0.17", "--muon-nesterov", "0.18 and 0.19 have it", "Megatron 0.17 calls it `muon_use_nesterov`"),
        ("0.19", "--muon-use-nesterov", "0.17 has it", "Megatron 0.19 calls it `muon_nesterov`"),
        ("0.18", "--manual-gcc", "has no option `--manual-gcc`", "did you mean `manual_gc`?"),
        ("0.18", "--colour-of-the-sky", "has no option `--colour-of-the-sky`", None),
    ],
)
def test_an_option_of_other_targets_names_them(target: str, option: str, message: str, help: str | None) -> None:
    said, remedy = missing(target, option)
    assert said.startswith(f"Megatron {target} has no option `{option}`")
    assert said.endswith(message)
    assert remedy == help


def test_renamed_options_exist_under_their_older_and_their_newer_name() -> None:

    for old, new in load_schema("megatron/renamed.json").items():
        assert old in option_table(TARGETS[0])
        assert new in NEWEST


def test_a_key_that_the_target_does_not_know_is_refused_at_its_place(tmp_path: Path) -> None:
    """No key of today's schema is: these arguments stand for one that sets an option of 0.19, and a later choice."""
    checked = quickstart(tmp_path, device='device: cpu\nmegatron:\n  target: "0.17"')
    assert checked.plan is not None
    assert checked.document is not None
    later = [
        Argument(option="--mtp-detach-heads", key="train.lr"),
        Argument(option="--optimizer", values=("soap",), key="train.optimizer"),
    ]
    values = {**checked.plan.values}
    values["train.optimizer"] = replace(values["train.optimizer"], value="soap")
    first, second = check_keys(replace(checked.plan, values=values), checked.document, later)
    assert (first.code, first.message) == (
        "SFTC501",
        "`train.lr`: Megatron 0.17 has no option `--mtp-detach-heads`; 0.19 has it",
    )
    assert first.span is not None
    assert (second.code, second.help) == ("SFTC503", 'Megatron 0.18 and 0.19 can: set `megatron.target: "0.19"`')


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_argument_file_says_what_the_plan_says(recipe: Path) -> None:
    checked = check_recipe(recipe, recipe.name)
    assert checked.plan is not None
    text = next(item.content for item in artifacts(checked) if item.path == "megatron.args").decode()
    lines = [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]
    assert len(lines) == len(checked.plan.arguments)
    for words, argument in zip(lines, checked.plan.arguments, strict=True):
        assert words in (
            [argument.option, *argument.values],
            [f"{argument.option}={value}" for value in argument.values],
        )
    names = [argument.option for argument in checked.plan.arguments]
    assert len(set(names)) == len(names)
    for line in text.splitlines():
        assert line == "" or line.startswith("# ") or "  # " in line


def test_flags_follow_their_key(tmp_path: Path) -> None:
    assert "--disable-bias-linear" in options(quickstart(tmp_path))
    changed = options(quickstart(tmp_path, init="init: random\n  add_bias_linear: true\n  qk_layernorm: true"))
    assert "--disable-bias-linear" not in changed
    assert "--qk-layernorm" in changed
    assert "--qk-layernorm" not in options(quickstart(tmp_path))


@pytest.mark.parametrize(("precision", "flags"), [("bf16", {"--bf16"}), ("fp32", set())])
def test_precision(tmp_path: Path, precision: str, flags: set[str]) -> None:
    assert {"--bf16", "--fp16"} & set(options(quickstart(tmp_path, precision=f"precision: {precision}"))) == flags


def test_without_validation_rows_there_is_no_evaluation(tmp_path: Path) -> None:
    section = ("eval", "eval_interval", "eval_on_start", "generate", "samples", "max_new_tokens", "batch_size")
    changed = options(quickstart(tmp_path, valid_data_path="", **dict.fromkeys(section, "")))
    assert changed["--eval-iters"].values == ("0",)
    # Megatron divides by it even when nothing is evaluated.
    assert changed["--eval-interval"].values == changed["--train-iters"].values


@pytest.mark.parametrize(("device", "in_main", "in_extra"), [("cuda", 0, 0), ("cpu", 1, 0), ("auto", 0, 1)])
def test_the_device_decides_where_the_cpu_arguments_stand(
    tmp_path: Path, device: str, in_main: int, in_extra: int
) -> None:
    plan = quickstart(tmp_path, device=f"device: {device}").plan
    assert plan is not None
    for arguments, count in ((plan.arguments, in_main), (plan.cpu_arguments, in_extra)):
        assert sum(argument.option == "--distributed-backend" for argument in arguments) == count


def test_weights_are_taken_on_the_first_start_only(tmp_path: Path) -> None:
    """`--load` is always the run's own directory: a resume must never fall back to the pretrained weights."""
    changed = options(quickstart(tmp_path, init="load: base"))
    assert changed["--load"].values == changed["--save"].values
    assert changed["--pretrained-checkpoint"].values == ("base",)
    assert not {"--finetune", "--no-load-optim", "--no-load-rng"} & set(changed)
    assert "--pretrained-checkpoint" not in options(quickstart(tmp_path))


def raw(tmp_path: Path, entries: str) -> list[tuple[str, str | None]]:
    checked = quickstart(tmp_path, device=f"device: cpu\n\nmegatron:\n  args:\n    {entries}")
    return [(item.code, item.help) for item in checked.diagnostics]


@pytest.mark.parametrize(
    ("entries", "code", "help"),
    [
        ("manual_gcc: true", "SFTC501", "did you mean `manual_gc`?"),
        ("lr: 1.0", "SFTC502", "use `train.lr`"),
        ("bf16: true", "SFTC502", "use `train.precision`"),
        ("disable_bias_linear: true", "SFTC502", "use `model.add_bias_linear`"),
        ("no_load_optim: true", "SFTC502", None),
        ("no_save_optim: true", "SFTC502", None),
        ("full_validation: true", "SFTC502", None),
        ("dataloader_type: cyclic", "SFTC502", None),
        ("no_gradient_accumulation_fusion: true", "SFTC502", "use `train.gradient_accumulation_fusion`"),
        ("sft: true", "SFTC502", None),
        ("manual_gc_interval: many", "SFTC503", None),
        ("manual_gc_interval: 1.5", "SFTC503", None),
        ("manual_gc_interval: [1, 2]", "SFTC503", None),
        ("manual_gc_interval: true", "SFTC503", None),
        ("manual_gc: 1", "SFTC503", None),
        ("manual_gc: false", "SFTC503", "leave the line out"),
        ("timing_log_level: 7", "SFTC503", None),
        ("{manual_gc: true, manual-gc: true}", "SFTC503", "remove one of the two"),
        ("tokenizer_type: HuggingFaceTokenizer", "SFTC502", None),
        ("distributed_backend: nccl", "SFTC502", "use `launch.device`"),
        ("lr_warmup_fraction: 0.1", "SFTC502", None),
        ("encoder_seq_length: 9", "SFTC502", "use `train.seq_length`"),
        ("use_rotary_position_embeddings: true", "SFTC502", "use `model.position_embedding_type`"),
        ("eod_mask_loss: true", "SFTC502", None),
        ("ckpt_step: 3", "SFTC502", None),
    ],
)
def test_raw_options_that_are_refused(tmp_path: Path, entries: str, code: str, help: str | None) -> None:
    found = raw(tmp_path, entries)
    assert [entry[0] for entry in found] == [code]
    assert help is None or found[0][1] == help


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ("manual_gc: true", ("--manual-gc",)),
        ("manual-gc-interval: 5", ("--manual-gc-interval", "5")),
        ("recompute_modules: [core_attn, mlp]", ("--recompute-modules", "core_attn", "mlp")),
        ("weight_decay_incr_style: linear", ("--weight-decay-incr-style", "linear")),
    ],
)
def test_raw_options_that_are_taken(tmp_path: Path, entries: str, words: tuple[str, ...]) -> None:
    checked = quickstart(tmp_path, device=f"device: cpu\n\nmegatron:\n  args:\n    {entries}")
    argument = options(checked)[words[0]]
    assert (argument.option, *argument.values) == words
    assert argument.key is not None
    assert argument.key.startswith("megatron.args.")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_no_raw_option_can_set_again_what_sftc_sets_itself(recipe: Path) -> None:
    plan = check_recipe(recipe, recipe.name).plan
    assert plan is not None
    keys = {schema[name] for _, schema in leaves() for name in ("x-megatron", "x-megatron-false") if name in schema}
    own = {
        item.option for item in (*plan.arguments, *plan.cpu_arguments) if not (item.key or "").startswith("megatron.")
    }
    # Fusions may be switched off a second time.
    flags = {option for option in own if option.endswith(("-fusion", "-layer-norm", "-initialization"))}
    assert own - keys - flags - set(managed_options()) == set()


def test_numbers_are_spelled_so_that_they_read_back(tmp_path: Path) -> None:
    for text in ("1e-05", "0.1", "3", "12345.678", "2.5e-07"):
        values: Any = options(quickstart(tmp_path, lr=f"lr: {text}"))["--lr"].values
        assert float(values[0]) == float(text)
