"""The slices of all ranks together are the tensor, and each lies where Megatron looks for it."""

import pytest

pytest.importorskip("safetensors")
torch = pytest.importorskip("torch")

from sftc.runtime.hf.cuts import cut, shape_of  # noqa: E402
from sftc.runtime.hf.load import match, patterns  # noqa: E402
from sftc.runtime.hf.sizes import Sizes  # noqa: E402
from sftc.runtime.hf.tables import FAMILIES, Row, places, rows_of  # noqa: E402
from sftc.runtime.hf.weights import take_apart  # noqa: E402

SIZES = Sizes(layers=2, hidden=8, heads=8, groups=4, head=4, ffn=16, expert_ffn=8, experts=2, vocab=10)
ROWS = [
    pytest.param(row, id=f"{name}: {row.names[0]}")
    for name in ("llama", "mixtral", "qwen3_moe")
    for row in rows_of(FAMILIES[name], tied=False, biases=name == "llama")
]


def parts_of(row: Row) -> list[torch.Tensor]:
    """Every entry of every part is another number."""
    shapes = [shape_of(row, part, SIZES) for part in range(len(row.parts))]
    return [1000.0 * part + torch.arange(torch.Size(shape).numel()).reshape(shape) for part, shape in enumerate(shapes)]


def slice_of(row: Row, rank: int, size: int, padded: int | None = None) -> torch.Tensor:
    """What one rank copies, as `load` does it."""
    parts, found = parts_of(row), cut(row, SIZES, rank=rank, size=size, padded_vocab=padded)
    pieces = []
    for piece in found.pieces:
        if piece.part is None:
            pieces.append(torch.zeros(piece.length, *parts[0].shape[1:]))
        else:
            pieces.append(parts[piece.part].narrow(found.axis, piece.start, piece.length))
    return torch.cat(pieces, found.axis)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_the_slices_are_the_whole(row: Row, size: int) -> None:
    padded = 16 if row.layout == "vocabulary" else None
    slices = [slice_of(row, rank, size, padded) for rank in range(size)]
    if row.layout == "whole":
        whole = slices[0]
        assert all(torch.equal(one, whole) for one in slices)
    elif row.layout == "halves":  # each rank holds a share of both halves
        first, second = zip(*(one.chunk(2) for one in slices), strict=True)
        whole = torch.cat([*first, *second])
    else:
        whole = torch.cat(slices, dim=1 if row.layout == "columns" else 0)
    assert torch.equal(whole, slice_of(row, 0, 1, padded))
    for found, given in zip(take_apart(whole, row, SIZES), parts_of(row), strict=True):
        assert torch.equal(found, given)


def test_queries_keys_and_values_of_a_group_lie_together() -> None:
    row = rows_of(FAMILIES["llama"], tied=False, biases=False)[1]
    query, key, value = parts_of(row)
    whole = slice_of(row, 0, 1)
    grouped = torch.cat([query.view(4, 8, 8), key.view(4, 4, 8), value.view(4, 4, 8)], dim=1).reshape(-1, 8)
    assert torch.equal(whole, grouped)


def test_the_padding_of_the_vocabulary_is_zero() -> None:
    row = rows_of(FAMILIES["llama"], tied=False, biases=False)[0]
    assert slice_of(row, 3, 4, 16).tolist() == [[0.0] * 8] * 4
    assert slice_of(row, 2, 4, 16)[2:].tolist() == [[0.0] * 8] * 2


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_no_tensor_is_used_twice(name: str, tied: bool) -> None:
    """But the embedding, of which the last pipeline stage holds a copy when it is tied."""
    used = [
        part.format(**place)
        for row in rows_of(FAMILIES[name], tied=tied, biases=name == "llama")
        for place in places(row, SIZES.layers, SIZES.experts)
        for part, _ in row.parts
    ]
    twice = {part for part in used if used.count(part) > 1}
    assert twice == ({"model.embed_tokens.weight"} if tied else set())


@pytest.mark.parametrize(
    "tail",
    [
        "input_layernorm.weight",
        "self_attention.linear_qkv.layer_norm_weight",  # Transformer Engine fuses a norm with what follows it
        "pre_mlp_layernorm.weight",
        "mlp.linear_fc1.layer_norm_weight",
        "mlp.experts.local_experts.1.linear_fc1.weight",
        "mlp.experts.linear_fc2.weight1",  # and groups experts
    ],
)
def test_both_kinds_of_layers_have_their_names(tail: str) -> None:
    rows = rows_of(FAMILIES["qwen3_moe"], tied=False, biases=False)
    found = match(f"decoder.layers.1.{tail}", patterns(rows))
    assert found is not None
    row, place = found
    assert place["layer"] == "1"
    assert ("expert" in place) == ("experts" in tail)
    assert row.parts[0][0].format(**place).startswith("model.layers.1.")


def test_a_parameter_that_no_row_names_has_none() -> None:
    rows = rows_of(FAMILIES["llama"], tied=False, biases=False)
    assert match("decoder.layers.1.self_attention.q_layernorm.weight", patterns(rows)) is None
