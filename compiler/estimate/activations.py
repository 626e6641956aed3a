"""What autograd keeps of one micro-batch until its backward pass, in bytes of one rank.

The terms follow the tensors that each operation saves, in the order of the layer. They are those of the method of
Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models" (2022), section 4, for the layers
that run here: attention without a score matrix, gated MLP, grouped queries. e is the bytes of an element, T the tokens
of the rank (`tokens`), N those that sequence parallelism leaves it (`narrow_tokens`).
"""

from .sizes import Sizes

FLOAT, INDEX, MASK = 4, 8, 1  # bytes
SLICE = {"cpu": 1 << 24, "cuda": 1 << 27}  # logits at a time, as in runtime/linear_cross_entropy.py


def norm(sizes: Sizes) -> int:
    """Input and statistics; on a CPU torch takes RMSNorm apart and keeps two float32 copies instead."""
    if sizes.on_cpu and sizes.is_rms:
        return sizes.narrow_tokens * (2 * sizes.hidden + 1) * FLOAT
    statistics = 1 if sizes.is_rms else 2
    return sizes.narrow_tokens * (sizes.hidden * sizes.element + statistics * FLOAT)


def linear_input(sizes: Sizes) -> int:
    """What a projection out of the residual stream keeps: e·N·h. Sequence parallelism gathers it again."""
    return sizes.narrow_tokens * sizes.hidden * sizes.element


def projections(sizes: Sizes) -> int:
    """Queries, keys and values. The values stay part of what the projection returned, which is kept whole: e·T(q+k+v).
    Rotation makes new queries and keys, e·T(q+k), and keeps a cosine and a sine for each; normalization makes new ones
    too, and keeps its input: a view, but for queries that grouping has copied.
    """
    q, k, v, e = sizes.queries, sizes.keys, sizes.values, sizes.element
    mixed = sizes.tokens * (q + k + v + sizes.latent) * e
    turned = sizes.tokens * (q + k) * e
    angles = 4 * sizes.length * sizes.rotated * e
    copied = sizes.tokens * q * e if sizes.copies_queries else 0
    if sizes.has_qk_norm:
        apart = sizes.on_cpu and sizes.is_rms  # see `norm`
        return mixed + turned + angles + (sizes.tokens * (q + k) * 2 * FLOAT if apart else copied)
    return mixed + (turned + angles if sizes.rotated else copied)


def attention(sizes: Sizes) -> int:
    """The output, e·T·q, which the projection behind it keeps too, and a logarithm of float32 for each head and token.

    See FlashAttention-2 (Dao, 2023): no score is kept.
    """
    return sizes.tokens * (_output(sizes) * sizes.element + sizes.heads * FLOAT)


def gathered_attention(sizes: Sizes) -> int:
    """The same of torch-native attention under context parallelism (runtime/attention.py), beside `projections`.

    Each of a rank's two chunks of c = s / 2CP tokens meets keys and values up to its own end, repeated for all query
    heads: (2CP + 1)·c of both over the two chunks, and a mask of c times as many. Parts are joined into a new output.
    """
    chunk = sizes.whole_length // (2 * sizes.cp)
    ends = (2 * sizes.cp + 1) * chunk
    repeated = ends * sizes.micro_batch * (sizes.queries + _output(sizes)) * sizes.element
    mask = chunk * ends * (MASK if sizes.on_cpu else sizes.element)
    joined = sizes.tokens * _output(sizes) * sizes.element
    return repeated + mask + joined + attention(sizes)


def mlp(sizes: Sizes, rows: int, width: int, *, routed: bool = False) -> int:
    """Between the two projections of an MLP of `width` for `rows` tokens, the second one's input included.

    Fused: what the first returned, 2f with a gate, and the input of the second, f. Unfused, the gate keeps two
    operands of f more; routed rows are then multiplied by their probability, which keeps another.
    """
    if not sizes.is_gated:
        return rows * 2 * width * sizes.element
    operands = 3 if sizes.is_fused else 6 if routed else 5
    return rows * operands * width * sizes.element


def experts(sizes: Sizes) -> int:
    """Routed rows as the experts' input, e·R·h, with their places and probabilities, and what the experts keep."""
    routing = sizes.narrow_tokens * (3 * sizes.top_k * INDEX)
    rows = sizes.rows * (sizes.hidden * sizes.element + INDEX + sizes.element)
    shared = mlp(sizes, sizes.tokens, sizes.shared_ffn)
    return routing + rows + mlp(sizes, sizes.rows, sizes.expert_ffn, routed=True) + shared


def layer(sizes: Sizes, *, has_experts: bool, selective: bool = False) -> int:
    """One transformer layer. `selective` recomputes core attention: it keeps its inputs and, for the projection behind
    it, its output.
    """
    gathers = sizes.cp > 1 and sizes.is_native
    own = attention(sizes) - (sizes.tokens * sizes.heads * FLOAT if selective else 0)
    core = gathered_attention(sizes) - _own_keys(sizes) if gathers and not selective else own
    inner = experts(sizes) if has_experts else mlp(sizes, sizes.tokens, sizes.ffn)
    dropped = 2 * sizes.narrow_tokens * sizes.hidden * MASK if sizes.dropout else 0
    return 2 * norm(sizes) + 2 * linear_input(sizes) + projections(sizes) + core + inner + dropped


def checkpointed(sizes: Sizes) -> int:
    """What full recomputation keeps of a chunk of layers: its input, e·N·h."""
    return linear_input(sizes)


def embedding(sizes: Sizes) -> int:
    """Ids, and under tensor parallelism which of them are another rank's."""
    ids = sizes.tokens * (INDEX + (MASK if sizes.tp > 1 else 0))
    return ids + (sizes.narrow_tokens * sizes.hidden * MASK if sizes.dropout else 0)


def head(sizes: Sizes) -> int:
    """Final norm, the output layer's input, and of the loss all but the logits: labels and masks. Fused with the loss,
    the input is not gathered again but kept, with each token's place and normalizer.
    """
    if sizes.fused_loss:
        return norm(sizes) + sizes.tokens * (sizes.hidden * sizes.element + 2 * INDEX + 2 * FLOAT + MASK)
    return norm(sizes) + linear_input(sizes) + sizes.tokens * (INDEX + FLOAT + MASK)


def kept_logits(sizes: Sizes) -> int:
    """The softmax, float32, of each token over this rank's share of the vocabulary."""
    return 0 if sizes.fused_loss else sizes.tokens * sizes.vocab * FLOAT


def passing_logits(sizes: Sizes) -> int:
    """The logits in half precision beside their softmax, in the forward pass; their gradient, in the backward pass.

    Fused with the loss: those of one slice, float32 and in half precision, and the sum of its weight gradients.
    """
    half = sizes.element if sizes.element < FLOAT else 0
    if not sizes.fused_loss:
        return sizes.tokens * sizes.vocab * half
    logits = min(SLICE["cpu" if sizes.on_cpu else "cuda"], sizes.tokens * sizes.vocab)
    gradient = sizes.vocab * sizes.hidden if sizes.trains_head else 0
    return (logits + gradient) * (FLOAT + half)


def _output(sizes: Sizes) -> int:
    """Width of attention's output: heads times the head dimension of the values."""
    return sizes.values if sizes.latent else sizes.queries


def _own_keys(sizes: Sizes) -> int:
    """Once gathered, a rank's own mixed projections and turned keys are no longer looked at."""
    mixed = sizes.tokens * (sizes.queries + sizes.keys + sizes.values) * sizes.element
    return mixed + sizes.tokens * sizes.keys * sizes.element
