"""The adapters of a run in Hugging Face's terms: merged into the weights beside which they learnt, or as `peft` reads
them.

In Megatron queries, keys and values are one linear with one adapter, as are gate and up: their parts have A in common
and a part of B each.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..errors import UserError
from ..lora.digest import BASE, checksum, word
from ..lora.settings import Settings
from ..lora.state import require_base
from ..megatron.saved import SavedModel
from .sizes import Sizes
from .tables import Row
from .weights import Parts, Place, is_no_weight, take_apart, trained_dtype, wanted

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class SavedAdapters:
    """Those of a checkpoint. UserError if one of its tensors belongs to no linear of `rows`."""

    def __init__(self, saved: SavedModel, settings: Settings, rows: Sequence[Row], sizes: Sizes) -> None:
        self.settings, self.sizes = settings, sizes
        self._saved, self.dtype = saved, trained_dtype(saved)
        self.linears = [(row, place) for row, place in wanted(rows, sizes) if (row, place) in self]
        used = {self._name(row, place, matrix) for row, place in self.linears for matrix in "ab"}
        if left := sorted(name for name in saved.names - used if not is_no_weight(name)):
            raise UserError(
                f"`{saved.folder}` holds {len(left)} tensors that are no adapters of this model, such as `{left[0]}`"
            )

    @property
    def base(self) -> str:
        """The digest of the weights that they were trained beside."""
        return word(self._saved.read(BASE, ()))

    def matrices(self, row: Row, place: Place) -> tuple[torch.Tensor, torch.Tensor]:
        """A [rank, inputs] and B [outputs, rank] of a linear, whole and in float32."""
        a, b = (self._saved.read(self._name(row, place, matrix), ()).float() for matrix in "ab")
        return a, b

    def __contains__(self, linear: tuple[Row, Place]) -> bool:
        return self._name(*linear, "a") in self._saved.names

    def outputs(self, row: Row, b: torch.Tensor) -> list[torch.Tensor]:
        """B of each Hugging Face linear that `row` is made of."""
        return [b] if len(row.parts) == 1 else take_apart(b, row, self.sizes)

    @staticmethod
    def _name(row: Row, place: Place, matrix: str) -> str:
        return f"{row.names[0].format(**place).removesuffix('.weight')}.lora.{matrix}"


class Merging:
    """`parts` are the frozen weights; they count as the run had them, rounded to the precision of the training."""

    def __init__(self, parts: Parts, adapters: SavedAdapters) -> None:
        self._base, self._adapters = parts, adapters
        self._dtype = adapters.dtype
        self._total = torch.zeros(1, dtype=torch.int64)

    def parts(self, row: Row, place: Place) -> list[torch.Tensor]:
        """The sums W + scale · B · A, in float32."""
        base = [tensor.to(self._dtype) for tensor in self._base(row, place)]
        for tensor in base:
            self._total += checksum(tensor)
        if (row, place) not in self._adapters:
            return base
        a, b = self._adapters.matrices(row, place)
        scale = self._adapters.settings.scale
        pairs = zip(base, self._adapters.outputs(row, b), strict=True)
        return [tensor.float() + scale * (part @ a) for tensor, part in pairs]

    def require_base(self) -> None:
        """UserError unless what was read are the weights that the adapters were trained beside."""
        require_base(saved=self._adapters.base, loaded=word(self._total))


def write_peft(folder: Path, adapters: SavedAdapters, *, base: str | None, dtype: torch.dtype) -> None:
    """`adapter_config.json` and `adapter_model.safetensors`. base: the Hugging Face directory of the frozen weights.

    UserError for adapters of experts, which in transformers are no linears that an adapter could hang on.
    """
    if any("expert" in place for _, place in adapters.linears):
        raise UserError(
            "`peft` has no adapters for single experts, and this run trained some",
            help="export the merged model, without --adapter",
        )
    tensors: dict[str, torch.Tensor] = {}
    for row, place in adapters.linears:
        a, b = adapters.matrices(row, place)
        for (name, _), part in zip(row.parts, adapters.outputs(row, b), strict=True):
            module = f"base_model.model.{name.format(**place).removesuffix('.weight')}"
            # q, k and v have A in common, and a file has no tensor twice
            tensors[f"{module}.lora_A.weight"] = a.to(dtype, copy=True).contiguous()
            tensors[f"{module}.lora_B.weight"] = part.to(dtype).contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = {**_config(adapters), "base_model_name_or_path": base}
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _config(adapters: SavedAdapters) -> dict[str, Any]:
    """What `peft.LoraConfig` is made from."""
    settings = adapters.settings
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": settings.rank,
        "lora_alpha": int(settings.alpha) if settings.alpha.is_integer() else settings.alpha,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.rslora,
        "target_modules": _targets(adapters),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
    }


def _targets(adapters: SavedAdapters) -> list[str]:
    """The last parts of the linears' names if those have adapters in all layers, else the whole names."""
    rows: dict[str, tuple[Row, int]] = {}
    for row, _ in adapters.linears:
        rows[row.names[0]] = row, rows.get(row.names[0], (row, 0))[1] + 1
    if all(count == adapters.sizes.layers for _, count in rows.values()):
        return sorted(name.split(".")[-2] for row, _ in rows.values() for name, _ in row.parts)
    return [name.format(**place).removesuffix(".weight") for row, place in adapters.linears for name, _ in row.parts]
