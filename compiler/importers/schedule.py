"""The length of a run and its precision."""

from .ledger import Handler, Ledger, Setting


def iterations(key: str) -> Handler:
    """Samples to iterations, as Megatron counts them: whole global batches."""

    def handler(ledger: Ledger, setting: Setting) -> None:
        batch = ledger["global_batch_size"]
        if not setting.value:
            ledger.skip(setting, "nothing is set")
        elif not isinstance(batch, int) or not isinstance(setting.value, int) or batch < 1:
            ledger.leave(setting, f"write `{key}`: samples / global batch size, which is not given")
        else:
            note = f"{setting.value} samples / {batch} in a global batch"
            ledger.put(setting, key, value=setting.value // batch, note=note)

    return handler


def half_precision(ledger: Ledger, setting: Setting) -> None:
    if setting.value:
        ledger.put(setting, "train.precision", value=setting.dest)
    else:
        ledger.skip(setting, "off")


MIXED_PRECISION = {"bf16_mixed": "bf16", "fp16_mixed": "fp16", "fp32": "fp32"}


def precision_config(ledger: Ledger, setting: Setting) -> None:
    if setting.value in MIXED_PRECISION:
        ledger.put(setting, "train.precision", value=MIXED_PRECISION[setting.value])
    else:
        ledger.leave(setting, "write `train.precision`; what is beyond bf16 and fp16 goes under `megatron.args`")


def finish(ledger: Ledger, *, complete: bool) -> None:
    """fp32 is what Megatron trains in when neither flag is given."""
    said = "bf16" in ledger.settings or "fp16" in ledger.settings
    if complete or said:
        ledger.fill("train.precision", "fp32", "Megatron's default: neither bf16 nor fp16")


HANDLERS: dict[str, Handler] = {
    "enable_fused_linear_ce": lambda ledger, setting: ledger.put(setting, "train.fused_linear_cross_entropy"),
    "train_samples": iterations("train.train_iters"),
    "lr_decay_samples": iterations("train.lr_decay_iters"),
    "lr_warmup_samples": iterations("train.lr_warmup_iters"),
    "bf16": half_precision,
    "fp16": half_precision,
    "precision_config": precision_config,
}
