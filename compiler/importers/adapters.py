"""LoRA in a Primus configuration: a block `lora`, and `peft: lora` where Megatron-Bridge trains."""

from collections.abc import Mapping

from .ledger import Ledger, Setting

KEYS = {
    "lora.dim": "lora.rank",
    "lora.alpha": "lora.alpha",
    "lora.dropout": "lora.dropout",
    "lora.target_modules": "lora.targets",
}
# What is so in every run of sftc's, and the setting that asks for it.
SAME = {"lora.dropout_position": "pre", "lora.lora_A_init_method": "kaiming", "lora.lora_B_init_method": "zero"}
# The class of adapters in Primus and in Megatron-Bridge has this, whatever the rank; alpha is the rank here.
ALPHA = 32
NOT_SAID = "Megatron-Bridge takes rank, alpha and targets from its recipe of the model"


def adapters(ledger: Ledger, merged: Mapping[str, Setting]) -> None:
    block = {dest: one for dest, one in merged.items() if dest.startswith("lora.")}
    switch, peft = block.pop("lora.enabled", None), merged.get("peft")
    asked = peft is not None and peft.value not in (None, "none", False)
    on = asked or (bool(switch.value) if switch else any(one.own for one in block.values()))
    if switch:
        ledger.skip(switch, "the section `lora` says it" if on else "LoRA is off")
    for dest, one in block.items():
        _place(ledger, dest, one, on=on)
    if on and "lora.dim" in block and block["lora.dim"].value != ALPHA and "lora.alpha" not in block:
        ledger.fill("lora.alpha", ALPHA, "what Primus and Megatron-Bridge take where nothing is said")
    if peft is None:
        return
    if not asked:
        ledger.skip(peft, "all weights are trained")
    elif peft.value != "lora":
        ledger.report("SFTC702", f"`peft: {peft.text}` is neither lora nor none", peft.span, help="sftc trains LoRA")
        ledger.leave(peft, "sftc trains all weights, or LoRA")
    elif "lora.rank" in {*ledger.values, *ledger.given}:
        ledger.skip(peft, "the section `lora` says it")
    else:
        help = "say what is right for your run, such as --set lora.rank=16"
        ledger.report("SFTC710", f"`peft: lora` says no rank: {NOT_SAID}", peft.span, help=help)
        ledger.leave(peft, NOT_SAID)


def _place(ledger: Ledger, dest: str, one: Setting, *, on: bool) -> None:
    if not on:
        ledger.skip(one, "LoRA is off")
    elif dest in KEYS:
        ledger.put(one, KEYS[dest])
    elif dest in SAME and one.value == SAME[dest]:
        ledger.skip(one, "sftc does so")
    elif dest == "lora.lora_A_init_method":
        ledger.leave(one, "A starts as in peft: uniform within 1 / the root of its inputs")
    else:
        ledger.leave(one, "sftc's adapters have no such setting")
