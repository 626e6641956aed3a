"""What the author probably meant: near spellings, keys that live in another section, names from other tools.

Answers are facts (a key, a path); the wording belongs to whoever reports them. Knows the recipe's keys only through
the schema that it is given.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

# Names that other tools give to a key of ours: Hugging Face TrainingArguments, TRL's SFTConfig, axolotl,
# Megatron-Bridge, NeMo, Primus, and Megatron's own where the recipe spells it differently.
SYNONYMS: dict[str, str] = {
    # the rate and its schedule
    "finetune_lr": "train.lr",
    "learning_rate": "train.lr",
    "max_lr": "train.lr",
    "min_learning_rate": "train.min_lr",
    "lr_min": "train.min_lr",
    "lr_end": "train.min_lr",
    "warmup_steps": "train.lr_warmup_iters",
    "num_warmup_steps": "train.lr_warmup_iters",
    "warmup_iters": "train.lr_warmup_iters",
    "lr_warmup_steps": "train.lr_warmup_iters",
    "lr_scheduler": "train.lr_decay_style",
    "lr_scheduler_type": "train.lr_decay_style",
    "scheduler": "train.lr_decay_style",
    "lr_schedule": "train.lr_decay_style",
    "lr_decay_steps": "train.lr_decay_iters",
    "decay_steps": "train.lr_decay_iters",
    # the optimizer
    "optim": "train.optimizer",
    "optimizer_type": "train.optimizer",
    "wd": "train.weight_decay",
    "beta1": "train.adam_beta1",
    "beta2": "train.adam_beta2",
    "adam_epsilon": "train.adam_eps",
    "eps": "train.adam_eps",
    "max_grad_norm": "train.clip_grad",
    "gradient_clipping": "train.clip_grad",
    "gradient_clip_val": "train.clip_grad",
    # batches and lengths
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "n_epochs": "train.epochs",
    "warmup_ratio": "train.lr_warmup_fraction",
    "val_set_size": "data.valid_fraction",
    "val_size": "data.valid_fraction",
    "test_size": "data.valid_fraction",
    "datasets": "data.sources",
    "max_steps": "train.train_iters",
    "num_steps": "train.train_iters",
    "train_steps": "train.train_iters",
    "num_train_steps": "train.train_iters",
    "per_device_train_batch_size": "train.micro_batch_size",
    "micro_batch": "train.micro_batch_size",
    "mbs": "train.micro_batch_size",
    "gbs": "train.global_batch_size",
    "train_batch_size": "train.global_batch_size",
    "max_length": "train.seq_length",
    "max_seq_length": "train.seq_length",
    "max_seq_len": "train.seq_length",
    "seq_len": "train.seq_length",
    "sequence_len": "train.seq_length",
    "sequence_length": "train.seq_length",
    "encoder_seq_length": "train.seq_length",
    "cutoff_len": "train.seq_length",
    # adapters
    "lora_r": "lora.rank",
    "lora_rank": "lora.rank",
    "lora_dim": "lora.rank",
    "dim": "lora.rank",
    "r": "lora.rank",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "target_modules": "lora.targets",
    "lora_target_modules": "lora.targets",
    "lora_target": "lora.targets",
    "use_rslora": "lora.rslora",
    "peft_use_rslora": "lora.rslora",
    # parallelism
    "tp": "parallel.tensor_model_parallel_size",
    "tp_size": "parallel.tensor_model_parallel_size",
    "tensor_parallel": "parallel.tensor_model_parallel_size",
    "tensor_parallel_size": "parallel.tensor_model_parallel_size",
    "pp": "parallel.pipeline_model_parallel_size",
    "pp_size": "parallel.pipeline_model_parallel_size",
    "pipeline_parallel_size": "parallel.pipeline_model_parallel_size",
    "vpp": "parallel.num_virtual_stages_per_pipeline_rank",
    "cp": "parallel.context_parallel_size",
    "cp_size": "parallel.context_parallel_size",
    "context_parallel": "parallel.context_parallel_size",
    "ep": "parallel.expert_model_parallel_size",
    "ep_size": "parallel.expert_model_parallel_size",
    "expert_parallel_size": "parallel.expert_model_parallel_size",
    "distributed_optimizer": "parallel.use_distributed_optimizer",
    # the model
    "pretrained_checkpoint": "model.load",
    "model_name_or_path": "model.load",
    "restore_from_path": "model.load",
    "base_model": "model.load",
    "load_checkpoint": "model.load",
    "num_hidden_layers": "model.num_layers",
    "intermediate_size": "model.ffn_hidden_size",
    "num_key_value_heads": "model.num_query_groups",
    "num_kv_heads": "model.num_query_groups",
    "head_dim": "model.kv_channels",
    "rope_theta": "model.rotary_base",
    "layernorm_epsilon": "model.norm_epsilon",
    "rms_norm_eps": "model.norm_epsilon",
    "initializer_range": "model.init_method_std",
    "num_moe_experts": "model.num_experts",
    "num_local_experts": "model.num_experts",
    "num_experts_per_tok": "model.moe_router_topk",
    # data and tokenizer
    "tokenizer_model": "tokenizer.path",
    "tokenizer_name": "tokenizer.path",
    "tokenizer_name_or_path": "tokenizer.path",
    "tokenizer_path": "tokenizer.path",
    "dataset": "data.train_data_path",
    "dataset_path": "data.train_data_path",
    "data_path": "data.train_data_path",
    "train_file": "data.train_data_path",
    "train_ds": "data.train_data_path",
    "validation_file": "data.valid_data_path",
    "validation_ds": "data.valid_data_path",
    "eval_data_path": "data.valid_data_path",
    "dataset_num_proc": "data.num_workers",
    "dataloader_num_workers": "data.num_workers",
    # checkpoints, evaluation, logging, launch
    "output_dir": "checkpoint.save",
    "save_dir": "checkpoint.save",
    "save_steps": "checkpoint.save_interval",
    "eval_steps": "eval.eval_interval",
    "val_check_interval": "eval.eval_interval",
    "limit_val_batches": "eval.eval_iters",
    "generation_max_length": "eval.generate.max_new_tokens",
    "max_tokens": "eval.generate.max_new_tokens",
    "compute_metrics": "hooks.answer_metrics",
    "logging_steps": "logging.log_interval",
    "logging_dir": "logging.tensorboard_dir",
    "tensorboard_path": "logging.tensorboard_dir",
    "wandb_project": "logging.wandb.project",
    "wandb_entity": "logging.wandb.entity",
    "wandb_exp_name": "logging.wandb.name",
    "mlflow_experiment_name": "logging.mlflow.experiment",
    "mlflow_tracking_uri": "logging.mlflow.tracking_uri",
    "num_nodes": "launch.nnodes",
    "gpus_per_node": "launch.nproc_per_node",
    "num_gpus": "launch.nproc_per_node",
    "env": "launch.environment",
    "container_image": "launch.container.image",
    "docker_image": "launch.container.image",
    "container_mounts": "launch.container.mounts",
    "megatron_path": "megatron.path",
    # one recipe upon another
    "extends": "base",
    "inherits": "base",
    "_base_": "base",
    "base_config": "base",
    "extra_args": "megatron.args",
}

# Names that say something else in one section.
WITHIN: dict[str, dict[str, str]] = {
    "eval.generate": {"max_length": "eval.generate.max_new_tokens", "num_samples": "eval.generate.samples"}
}

# Keys of other tools that are no other spelling of one of ours: what to do instead.
ADVICE: dict[str, str] = {
    "bf16": "write `precision: bf16` under `train`",
    "fp16": "write `precision: fp16` under `train`",
    "fp32": "write `precision: fp32` under `train`",
    "batch_size": "set `train.global_batch_size`, of which a rank takes `train.micro_batch_size` at once",
    "do_sample": "set `eval.generate.temperature`",
    "predict_with_generate": "write a section `generate` with `samples` under `eval` for true, none for false",
    "gradient_accumulation_steps": "set `train.global_batch_size` to micro_batch_size * data-parallel ranks * this",
    "gradient_checkpointing": "set `train.recompute_granularity`",
    "completion_only_loss": "set `data.loss_on`",
    "assistant_only_loss": "set `data.loss_on`",
    "mask_history": "write `loss_on: last_turn` under `data` for true, `loss_on: assistant` for false",
    "train_on_inputs": "write `loss_on: all` under `data` for true, `loss_on: assistant` for false",
    "stage": "write `is_instruction_dataset: true` under `task` for SFT",
    "peft": "write a section `lora` with `rank` for LoRA, none for all weights",
    "peft_config": "write a section `lora` with `rank` for LoRA, none for all weights",
    "peft_scheme": "write a section `lora` with `rank` for LoRA, none for all weights",
    "use_peft": "write a section `lora` with `rank` for true, none for false",
    "adapter": "write a section `lora` with `rank` for lora; sftc trains no quantized weights",
    "load_in_4bit": "sftc trains beside weights in `train.precision`, not beside quantized ones",
    "load_in_8bit": "sftc trains beside weights in `train.precision`, not beside quantized ones",
    "world_size": "it follows from `launch.nnodes` * `launch.nproc_per_node`",
    "data_parallel_size": "it follows from the number of ranks and the other sizes under `parallel`",
}
# The words for answers mean something else in other places: only what stands in `eval` is a section too high.
APART = "eval.generate"


class Kind(Enum):
    """What a key that nobody reads is."""

    MISPLACED = auto()  # a key of another section
    RENAMED = auto()  # another tool's name for one of ours
    FOREIGN = auto()  # another tool's key, for which we have none
    SLIP = auto()  # of the pen, for a sibling
    SLIP_ELSEWHERE = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """`paths` are the dotted keys that were probably meant."""

    kind: Kind
    paths: tuple[str, ...] = ()


def remedy(key: str, section: str, siblings: Iterable[str], schema: Mapping[str, Any]) -> Remedy:
    """What to do about the unknown `key` in the dotted `section`, whose keys are `siblings`."""
    homes = [home for home in locate(key, schema) if home != APART or section == APART.rpartition(".")[0]]
    # Entries of a list repeat keys that have a home elsewhere.
    if homes := [home for home in homes if "[]" not in home] or homes:
        return Remedy(kind=Kind.MISPLACED, paths=tuple(f"{home}.{key}" if home else key for home in homes))
    paths = key_paths(schema)
    if (path := WITHIN.get(section, {}).get(key) or SYNONYMS.get(key)) and path in paths:
        return Remedy(kind=Kind.RENAMED, paths=(path,))
    if key in ADVICE:
        return Remedy(kind=Kind.FOREIGN)
    if near := closest(key, siblings):
        return Remedy(kind=Kind.SLIP, paths=(f"{section}.{near}" if section else near,))
    if near := closest(key, [path.rpartition(".")[2] for path in paths]):
        matches = tuple(path for path in paths if path.rpartition(".")[2] == near)
        return Remedy(kind=Kind.SLIP_ELSEWHERE, paths=matches)
    return Remedy(kind=Kind.UNKNOWN)


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `word` is most likely a slip of, or None; letter case, `-` and `_` count for nothing.

    Ties go to the candidate that sorts first.
    """
    plain = _plain(word)
    limit = 1 if len(plain) <= 4 else 2 if len(plain) <= 8 else 3
    best: tuple[int, str] | None = None
    for candidate in candidates:
        other = _plain(candidate)
        if abs(len(other) - len(plain)) > limit or not other:
            continue
        distance = _edits(plain, other, limit)
        # One edit in two letters leaves nothing to recognize, unless it is a swap.
        if distance > limit or (distance and min(len(plain), len(other)) <= 2 and sorted(plain) != sorted(other)):
            continue
        if best is None or (distance, candidate) < best:
            best = (distance, candidate)
    return best[1] if best else None


def locate(key: str, schema: Mapping[str, Any]) -> list[str]:
    """The dotted sections in which `key` lives, in the schema's order; the root is `""`."""
    return [section for section, name, _ in _keys(schema) if name == key]


def key_paths(schema: Mapping[str, Any]) -> list[str]:
    """Every dotted key of the schema, sections included, in the schema's order."""
    return [f"{section}.{name}" if section else name for section, name, _ in _keys(schema)]


def _keys(
    schema: Mapping[str, Any], root: Mapping[str, Any] | None = None, section: str = "", depth: int = 0
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(section, key, its schema), through `$ref`, `allOf`, `anyOf`, `oneOf` and `items`; schemas may be recursive."""
    root = schema if root is None else root
    if depth > 8:
        return
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        yield from _keys(root["$defs"][reference.removeprefix("#/$defs/")], root, section, depth + 1)
    for name, child in schema.get("properties", {}).items():
        yield section, name, child
        yield from _keys(child, root, f"{section}.{name}" if section else name, depth + 1)
    for branch in (*schema.get("allOf", ()), *schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _keys(branch, root, section, depth + 1)
    if isinstance(schema.get("items"), dict):
        yield from _keys(schema["items"], root, f"{section}[]", depth + 1)


def _plain(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "")


def _edits(one: str, other: str, limit: int) -> int:
    """Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).

    Stops counting beyond `limit`: a file that is no recipe at all has hundreds of unknown keys.
    """
    before_last: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, wanted in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, before_last[j - 2] + 1)
            row.append(cost)
        if min(row) > limit and min(last) > limit:
            return limit + 1
        before_last, last = last, row
    return last[-1]
