"""Low-rank adapters (LoRA) on Megatron's parallel linears: weights are frozen, and two narrow matrices learn beside.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021): y = W·x + (alpha / rank)·B·A·x. Hugging Face's
`peft` has such layers for Megatron, too (`peft/tuners/lora/tp_layer.py`), which do not do here: they put a module with
other parameter names in the linear's place, have no `sharded_state_dict` for distributed checkpoints, leave gradients
of replicated matrices unreduced under sequence parallelism, set the model's `params_dtype` to float32, and know neither
Transformer Engine's linears (fused with a norm, or grouped over experts) nor expert parallelism. Here a linear stays as
it is, under its name, and what the adapter adds to its output comes from a hook.
"""
