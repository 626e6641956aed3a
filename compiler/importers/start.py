"""Where the first weights come from, and how checkpoints are written."""

from .ledger import Handler, Ledger, Setting

RESUMES = "it is the directory of `save`: a resume is found by itself"


def load(ledger: Ledger, setting: Setting) -> None:
    if setting.value == ledger["save"]:
        ledger.skip(setting, RESUMES)
    elif ledger["pretrained_checkpoint"]:
        ledger.leave(
            setting, "`pretrained_checkpoint` is taken for `model.load`; a resume is looked for in `save` alone"
        )
    else:
        ledger.put(setting, "model.load")


def finetune(ledger: Ledger, setting: Setting) -> None:
    if not setting.value and ledger["pretrained_checkpoint"]:
        ledger.skip(setting, "of `pretrained_checkpoint` Megatron takes the weights only, in any case")
    elif starts_from_checkpoint(ledger):
        ledger.put(setting, "checkpoint.finetune")
    else:
        ledger.skip(setting, "no checkpoint is named to start from")


def leave_states(key: str) -> Handler:
    def handler(ledger: Ledger, setting: Setting) -> None:
        if not setting.value or not starts_from_checkpoint(ledger):
            ledger.skip(setting, "no checkpoint is named to start from" if setting.value else "off")
        else:
            ledger.put(setting, key)

    return handler


def checkpoint_format(ledger: Ledger, setting: Setting) -> None:
    if setting.value == "torch_dist":
        ledger.put(setting, "checkpoint.ckpt_format")
    else:
        remedy = "checkpoints are written as torch_dist; one to start from has to be converted to it"
        ledger.leave(setting, remedy)


def starts_from_checkpoint(ledger: Ledger) -> bool:
    first = ledger["load"]
    named = ledger["pretrained_checkpoint"] or (first and first != ledger["save"])
    return bool(named or "model.load" in ledger.given)


def first_weights(ledger: Ledger, *, sft: bool, complete: bool) -> None:
    """Random ones where Megatron would take them; for SFT nobody means that, so that the recipe has to say it.

    Without `model.load`, what Megatron does with `finetune` has nothing to apply to.
    """
    if {"load", "pretrained_checkpoint"} & ledger.unsure:
        return
    if starts_from_checkpoint(ledger):
        continues = "model.load" in ledger.values and not ledger["pretrained_checkpoint"]
        if complete and continues and ledger["finetune"] is None:
            ledger.fill("checkpoint.finetune", False, "Megatron's default: without finetune it continues that run")
    elif not sft and "model.load" not in ledger.values:
        ledger.fill("model.init", "random", "no checkpoint is named to start from")


HANDLERS: dict[str, Handler] = {
    "load": load,
    "pretrained_checkpoint": lambda ledger, setting: ledger.put(setting, "model.load"),
    "finetune": finetune,
    "no_load_optim": leave_states("checkpoint.no_load_optim"),
    "no_load_rng": leave_states("checkpoint.no_load_rng"),
    "ckpt_format": checkpoint_format,
}
