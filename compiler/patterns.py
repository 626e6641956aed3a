"""Patterns of layers, as Megatron's `--moe-layer-freq` and `--window-attn-skip-freq` take them.

A pattern is a number N, or lists of 0 and 1 with `+` and `*` between them, such as `([0]+[1]*26)`. Megatron hands the
text to Python's `eval`; here it is read, never run.
"""

import ast

LONGEST = 10_000  # layers; `[1]*999999999` is a slip, not a model


def layer_pattern(text: int | str) -> int | list[int]:
    """The number or the list that `text` stands for. ValueError for anything else."""
    try:
        value = _evaluate(ast.parse(str(text), mode="eval").body)
    except (SyntaxError, RecursionError, ValueError):
        value = 0
    if (value < 1) if isinstance(value, int) else any(item not in (0, 1) for item in value):
        raise ValueError(f"`{text}` is no pattern of layers")
    return value


def _evaluate(node: ast.expr) -> int | list[int]:
    match node:
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            return number
        case ast.List(elts=items):
            return [item for one in items for item in _as_items(_evaluate(one))]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            one, other = _evaluate(left), _evaluate(right)
            if isinstance(one, list) and isinstance(other, list):
                return one + other
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            one, other = _evaluate(left), _evaluate(right)
            if isinstance(one, int) and isinstance(other, list):
                one, other = other, one
            if isinstance(one, list) and isinstance(other, int) and len(one) * other <= LONGEST:
                return one * other
    raise ValueError(ast.unparse(node))


def _as_items(value: int | list[int]) -> list[int]:
    if isinstance(value, list):
        raise ValueError("a list within a list")
    return [value]
