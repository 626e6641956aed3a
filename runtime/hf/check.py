"""Whether a Hugging Face directory is the model of the recipe. Reads headers only, imports no torch."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from .config import FILE, PRE_SOFTMAX, UNSAID, read_config, recipe_values, unsayable
from .cuts import shape_of
from .files import TYPES, Tensor, read_tensors
from .sizes import Sizes
from .tables import Row, places, rows_of

SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A directory that was found to be the recipe's model."""

    directory: Path
    sizes: Sizes
    rows: tuple[Row, ...]
    tensors: Mapping[str, Tensor]


def open_model(directory: Path, value: Callable[[str], Any]) -> Model:
    """UserError for whatever keeps `directory` from being the model that the plan's values describe: every difference
    of config.json at once; then every tensor that is missing, left over, or of another shape.
    """
    config, family = read_config(directory)
    if found := unsayable(config, family, value("train.seq_length")):
        raise UserError(f"`{directory / FILE}` asks for what sftc cannot train: {'; '.join(found)}", help=UNSAID)
    _require_agreement(directory / FILE, recipe_values(config, family, directory / FILE), value)
    sizes = Sizes.of(value)
    tied = not value("model.untie_embeddings_and_output_weights")
    rows = rows_of(family, tied=tied, biases=value("model.add_bias_linear"))
    ignored = {name.format(layer=layer) for name in family.ignored for layer in range(sizes.layers)}
    if tied:
        ignored.add("lm_head.weight")  # a second copy in some files of tied models
    tensors = read_tensors(directory)
    _require_tensors(directory, tensors, rows, sizes, ignored)
    return Model(directory=directory, sizes=sizes, rows=rows, tensors=tensors)


def notices(model: Model, value: Callable[[str], Any]) -> list[str]:
    """What happens to the weights that is worth a line."""
    kinds = sorted({tensor.dtype for tensor in model.tensors.values()})
    size = sum(_bytes(tensor) for tensor in model.tensors.values())
    lines = [f"weights in `{model.directory}`: {len(model.tensors)} tensors, {size / 1e9:.2f} GB of {', '.join(kinds)}"]
    precision = value("train.precision")
    if precision != "fp32" and "F32" in kinds:
        lines.append(f"WARNING: float32 weights are rounded to {precision}, the precision of the training")
    multiple = value("model.make_vocab_size_divisible_by") * value("parallel.tensor_model_parallel_size")
    padding = -model.sizes.vocab % multiple
    if padding:
        lines.append(
            f"WARNING: the vocabulary is padded by {padding} rows of zeros to a multiple of {multiple}; each adds "
            "exp(0) to the softmax (see `model.make_vocab_size_divisible_by`)"
        )
    return lines


def _require_agreement(path: Path, wanted: Mapping[str, Any], value: Callable[[str], Any]) -> None:
    lines: dict[str, list[str]] = {}
    for key, want in wanted.items():
        have = _stated(key, value)
        if have != want:
            section, _, name = key.rpartition(".")
            lines.setdefault(section, []).append(f"    {name}: {_yaml(want)}  # the recipe: {_yaml(have)}")
    if not lines:
        return
    count = sum(map(len, lines.values()))
    text = "\n".join(f"  {section.replace('.', ': ')}:\n" + "\n".join(found) for section, found in lines.items())
    raise UserError(
        f"`{path}` and the recipe differ in {count} {'place' if count == 1 else 'places'}; the model is\n{text}",
        help="write these lines into the recipe and compile again, or load another model",
    )


def _stated(key: str, value: Callable[[str], Any]) -> Any:
    """The value of `key`, or what Megatron takes where the recipe leaves it out."""
    if key == PRE_SOFTMAX:
        return bool(value("megatron.args").get("moe_router_pre_softmax"))
    if value(key) is None and key == "model.moe_ffn_hidden_size":
        return value("model.ffn_hidden_size")
    if value(key) is None and key == "model.moe_router_topk":
        return 2
    return value(key)


def _require_tensors(
    directory: Path, tensors: Mapping[str, Tensor], rows: tuple[Row, ...], sizes: Sizes, ignored: set[str]
) -> None:
    wanted = {
        name.format(**place): shape_of(row, part, sizes)
        for row in rows
        for place in places(row, sizes.layers, sizes.experts)
        for part, (name, _) in enumerate(row.parts)
    }
    missing = sorted(set(wanted) - set(tensors))
    left = sorted(set(tensors) - set(wanted) - ignored)
    wrong = [
        f"{name} is {_shape(tensors[name].shape)}, the recipe makes it {_shape(shape)}"
        for name, shape in wanted.items()
        if name in tensors and tensors[name].shape != shape
    ]
    foreign = [
        f"{name} is {tensors[name].dtype}" for name in wanted if name in tensors and tensors[name].dtype not in TYPES
    ]
    problems = [
        _listed("are missing", missing),
        _listed("have no place in the model", left),
        _listed("have another shape", wrong),
        _listed(f"are none of {', '.join(TYPES)}", foreign),
    ]
    if any(problems):
        raise UserError(
            f"the tensors in `{directory}` are not those of the recipe's model\n" + "\n".join(filter(None, problems)),
            help="nothing was trained; check that config.json belongs to these files",
        )


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    shown = "".join(f"\n    {name}" for name in names[:SHOWN])
    more = f"\n    and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"  {len(names)} {what}:{shown}{more}"


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _yaml(value: Any) -> str:
    if isinstance(value, float) and not value.is_integer():
        return repr(value)
    if isinstance(value, float):
        return str(int(value)) if value < 1e15 else repr(value)
    return json.dumps(value)


def _bytes(tensor: Tensor) -> int:
    count = 4 if tensor.dtype == "F32" else 2
    for length in tensor.shape:
        count *= length
    return count
