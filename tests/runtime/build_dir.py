"""Small build dirs, written by hand in the compiler's format, for tests of the runtime alone."""

import hashlib
import json
from pathlib import Path
from typing import Any

STEP = Path(__file__).with_name("tiny_step.py")

VALUES: dict[str, dict[str, Any]] = {
    "model": {"transformer_impl": "local", "load": None, "init": "random"},
    "data": {
        "train_data_path": "train.jsonl",
        "sources": None,
        "valid_data_path": "valid.jsonl",
        "valid_fraction": None,
        "store_path": "store",
        "padding": "max_length",
    },
    "train": {
        "train_iters": 8,
        "epochs": None,
        "global_batch_size": 4,
        "seq_length": 32,
        "lr": 0.002,
        "fused_linear_cross_entropy": False,
        "fused_adam": False,
        "torch_compile": False,
    },
    "lora": {"rank": None},
    "hooks": {"datasets_provider": None},
    "checkpoint": {
        "keep": None,
        "save": "run/checkpoints",
        "finetune": True,
        "no_load_optim": False,
        "no_load_rng": False,
        "export_hf": False,
    },
    "eval": {"eval_interval": 4, "eval_iters": None, "eval_on_start": False, "generate.samples": None},
    "logging": {
        "run_path": "run",
        "tensorboard_dir": "run/tensorboard",
        "wandb.project": None,
        "mlflow.experiment": None,
    },
    "launch": {"device": "auto", "hardware": None, "max_inprocess_restarts": 0},
}

ARGUMENTS = """\
--num-layers 2
--hidden-size 32
--ffn-hidden-size 64
--num-attention-heads 4
--group-query-attention
--num-query-groups 2
--max-position-embeddings 32
--position-embedding-type rope
--no-rope-fusion
--normalization RMSNorm
--swiglu
--disable-bias-linear
--untie-embeddings-and-output-weights
--attention-dropout 0.1
--hidden-dropout 0.1
--vocab-size 100          # model.vocab_size
--make-vocab-size-divisible-by 64
--tokenizer-type NullTokenizer
--transformer-impl local
--no-persist-layer-norm
--micro-batch-size 2
--global-batch-size 4
--seq-length 32
--train-iters 8
--lr 0.002
--min-lr 0
--lr-decay-style cosine
--calculate-per-token-loss
--use-distributed-optimizer
--dataloader-type single
--no-create-attention-mask-in-dataloader
--num-workers 1
--save run/checkpoints
--load run/checkpoints
--save-interval 3
--ckpt-format torch_dist
--eval-interval 4
--log-interval 1
--tensorboard-dir run/tensorboard
"""

CPU_ARGUMENTS = """\
--distributed-backend gloo
--no-gradient-accumulation-fusion
--no-masked-softmax-fusion
--no-bias-swiglu-fusion
--no-bias-dropout-fusion
"""


def write_build(
    folder: Path, *, values: dict[str, Any] | None = None, arguments: str = "", step: str | None = None
) -> Path:
    """A build dir in `folder`. `values` maps keys such as `train.lr`; `arguments` are lines after the usual ones."""
    merged = {section: dict(keys) for section, keys in VALUES.items()}
    for key, value in (values or {}).items():
        section, _, name = key.partition(".")
        merged[section][name] = value
    plan = {
        "plan_version": 1,
        "name": "tiny",
        "hooks": [],
        "target": {"megatron": "0.19", "launcher": "torchrun"},
        "values": {section: _nested(keys) for section, keys in merged.items()},
    }
    files = {
        "plan.json": json.dumps(plan),
        "megatron.args": ARGUMENTS + arguments,
        "megatron.cpu.args": CPU_ARGUMENTS,
        "forward_step.py": STEP.read_text(encoding="utf-8") if step is None else step,
    }
    digests = {name: _sha256(text) for name, text in files.items()}
    subjects = [{"name": name, "digest": {"sha256": digest}} for name, digest in digests.items()]
    files["manifest.json"] = json.dumps({"subject": subjects})
    digests["manifest.json"] = _sha256(files["manifest.json"])
    files["SHA256SUMS"] = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def _nested(keys: dict[str, Any]) -> dict[str, Any]:
    """The values of a section as plan.json has them; a name such as `wandb.project` is one of a section in it."""
    found: dict[str, Any] = {}
    for name, value in keys.items():
        inner, _, last = name.rpartition(".")
        place = found.setdefault(inner, {}) if inner else found
        place[last] = {"value": value, "origin": {"from": "recipe"}}
    return found


def digest_of(build: Path) -> str:
    return hashlib.sha256((build / "manifest.json").read_bytes()).hexdigest()


def write_pointer(build: Path, run_path: Path, *, valid_samples: int = 6) -> None:
    """The pointer that `prepare` leaves; the tests' forward step makes its own rows."""
    run_path.mkdir(parents=True, exist_ok=True)
    content = {"manifest": digest_of(build), "store": "none", "valid_samples": valid_samples}
    (run_path / "data.json").write_text(json.dumps(content), encoding="utf-8")


def replace_step(build: Path, step: str) -> None:
    """Put `step` in the place of the generated forward step, and the digests right."""
    (build / "forward_step.py").write_text(step, encoding="utf-8")

    def digest(name: str) -> str:
        return _sha256((build / name).read_text(encoding="utf-8"))

    manifest = json.loads((build / "manifest.json").read_text(encoding="utf-8"))
    for subject in manifest["subject"]:
        subject["digest"]["sha256"] = digest(subject["name"])
    (build / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    names = [line[66:] for line in (build / "SHA256SUMS").read_text(encoding="utf-8").splitlines()]
    (build / "SHA256SUMS").write_text("".join(f"{digest(name)}  {name}\n" for name in names), encoding="utf-8")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
