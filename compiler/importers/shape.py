"""Settings of the model and its layout that are more than one option."""

from .ledger import Handler, Ledger, Setting


def query_attention(ledger: Ledger, setting: Setting) -> None:
    groups = ledger["num_query_groups"]
    if not setting.value:
        ledger.skip(setting, "every head is a group of its own")
    elif groups is None:
        ledger.put(setting, "model.num_query_groups", value=1, note="Megatron's default number of groups")
    else:
        ledger.skip(setting, "it follows from `model.num_query_groups`")


def query_groups(ledger: Ledger, setting: Setting) -> None:
    if "group_query_attention" in ledger.settings and not ledger["group_query_attention"]:
        ledger.skip(setting, "read only with group_query_attention")
    else:
        ledger.put(setting, "model.num_query_groups")


def sequence_parallel(ledger: Ledger, setting: Setting) -> None:
    if setting.value and (ledger["tensor_model_parallel_size"] or 1) == 1:
        ledger.skip(setting, "Megatron turns it off at tensor_model_parallel_size 1")
    else:
        ledger.put(setting, "parallel.sequence_parallel")


def rotary(ledger: Ledger, setting: Setting) -> None:
    if setting.value:
        ledger.put(setting, "model.position_embedding_type", value="rope")
    else:
        ledger.skip(setting, "off")


def position(ledger: Ledger, setting: Setting) -> None:
    if ledger["position_embedding_type"] == "rope" or ledger["use_rotary_position_embeddings"]:
        ledger.skip(setting, "read only with learned positions")
    elif setting.value:
        ledger.skip(setting, "`model.position_embedding_type` says so")
    else:
        ledger.leave(setting, "Megatron takes it with rope only; use `model.position_embedding_type`")


def recompute(ledger: Ledger, setting: Setting) -> None:
    if setting.value:
        ledger.put(setting, "train.recompute_granularity", value="selective")
    else:
        ledger.skip(setting, "off")


def finish(ledger: Ledger) -> None:
    """Sizes that Megatron computes."""
    hidden = ledger["hidden_size"]
    if isinstance(hidden, int):
        gated = bool(ledger["swiglu"])
        width = int(4 * hidden * 2 / 3) // 64 * 64 if gated else 4 * hidden
        formula = "two thirds of 4 * hidden_size, in 64s" if gated else "4 * hidden_size"
        ledger.fill("model.ffn_hidden_size", width, f"Megatron's default: {formula}")


HANDLERS: dict[str, Handler] = {
    "group_query_attention": query_attention,
    "num_query_groups": query_groups,
    "sequence_parallel": sequence_parallel,
    "use_rotary_position_embeddings": rotary,
    "add_position_embedding": position,
    "recompute_activations": recompute,
}
