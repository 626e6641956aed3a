"""Prepared data as torch datasets: right-padded rows or packs of rows, in a seeded order."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError
from .indexed import IndexedReader
from .order import Blended, Order, Shuffled, arrange
from .packing import lay_out
from .prepare import POINTER
from .store import read_summary

# A run's progress is the number of samples it has consumed, which must never reach the dataset's length.
ENDLESS = 1 << 40


class PreparedData:
    """One directory of the store."""

    def __init__(self, store: Path, summary: dict[str, Any], eval_samples: int | None = None) -> None:
        self.store = store
        self.summary = summary
        self.eval_samples = eval_samples
        self.seq_length: int = summary["settings"]["seq_length"]
        self.pad_id: int = summary["pad_id"]

    @classmethod
    def of_run(cls, run_path: str | Path) -> "PreparedData":
        """The data that was prepared for the run in `run_path`; UserError if there is none."""
        pointer = Path(run_path) / POINTER
        remedy = "start the run with launch.sh, which prepares the data first"
        try:
            content = json.loads(pointer.read_bytes())
            store, eval_samples = Path(content["store"]), int(content["eval_samples"])
        except FileNotFoundError:
            raise UserError(f"no data was prepared for this run: there is no `{pointer}`", remedy) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"`{pointer}` cannot be used: {error}", remedy) from None
        return cls.open(store, eval_samples)

    @classmethod
    def open(cls, store: str | Path, eval_samples: int | None = None) -> "PreparedData":
        """The data in directory `store`, of which an evaluation takes `eval_samples` (default: each row once).

        UserError if it is not there or not whole.
        """
        summary = read_summary(Path(store))
        if summary is None:
            raise UserError(
                f"the prepared data in `{store}` is gone or not whole", "start launch.sh again, which prepares it anew"
            )
        return cls(Path(store), summary, eval_samples)

    def rows(self, split: str) -> int:
        """Rows of `split`, `train` or `valid`, or packs of rows if they are packed; 0 if there is none."""
        figures = self.summary["splits"].get(split, {})
        kept: int = figures["packing"]["packs"] if "packing" in figures else figures.get("kept", 0)
        return kept

    def conversations(self, split: str) -> int:
        """Rows of `split`, packed or not."""
        return int(self.summary["splits"].get(split, {}).get("kept", 0))

    def train(
        self,
        *,
        num_samples: int,
        seed: int,
        global_batch_size: int = 1,
        micro_batch_size: int = 1,
        data_parallel_size: int = 1,
        weights: Sequence[float] | None = None,
        seq_length: int | None = None,
    ) -> "TrainSamples":
        """Which samples make up a global batch follows from `seed`, epoch by epoch, and `weights`, the shares of the
        sources. How they lie in it follows from the ranks and their micro-batches; see `order`. UserError for weights
        that leave a source out.

        The dataset is endless, whatever `num_samples` Megatron asks for.
        """
        assert num_samples < ENDLESS
        order: Order = Shuffled(self.rows("train"), seed)
        if weights is not None:
            order = Blended([source["samples"] for source in self.summary["splits"]["train"]["sources"]], weights, seed)
        batch = Batching(whole=global_batch_size, micro=micro_batch_size, ranks=data_parallel_size)
        return TrainSamples(self, self._length(seq_length), order, batch)

    def valid(
        self, *, num_samples: int, seq_length: int | None = None, eval_samples: int | None = None
    ) -> "ValidSamples":
        """Sample i is number i % eval_samples of an evaluation; `eval_samples` is the run's, unless it is given.

        With more samples than rows the surplus has no loss, so that each row counts once; with fewer, rows are taken
        evenly from the whole file, always the same ones. Endless too: `num_samples` is for all evaluations together.
        """
        assert num_samples < ENDLESS
        if eval_samples is None:
            eval_samples = self.rows("valid") if self.eval_samples is None else self.eval_samples
        return ValidSamples(self, self._length(seq_length), eval_samples)

    def _length(self, seq_length: int | None) -> int:
        if seq_length is not None and seq_length < self.seq_length:
            raise UserError(
                f"the data in `{self.store}` was prepared for {self.seq_length:,} positions, not {seq_length:,}",
                "start launch.sh again, which prepares it anew",
            )
        return self.seq_length if seq_length is None else seq_length


class _Samples(Dataset[dict[str, Tensor]]):
    """Samples of one split, without an order: `tokens`, `labels`, `position_ids` int64 [s], `loss_mask` float32 [s].

    A sample is a row, which has `length` int64 [] too: how many of the s positions are its own; or a pack if rows are
    packed, which has `cu_seqlens` int32, see `packing.lay_out`. What is called a row in the methods below is either.
    """

    def __init__(self, data: PreparedData, split: str, seq_length: int) -> None:
        if not data.rows(split):
            raise UserError(
                f"there are no {split} rows in `{data.store}`",
                f"set `data.{split}_data_path`, or `data.valid_fraction`" if split == "valid" else None,
            )
        self._tokens = IndexedReader(data.store / f"{split}.tokens")
        self._masks = IndexedReader(data.store / f"{split}.mask")
        self._pad_id = data.pad_id
        self._seq_length = seq_length
        packing = data.summary["splits"][split].get("packing")
        self._packs = IndexedReader(data.store / f"{split}.packs") if packing else None
        self._multiple = packing["multiple"] if packing else 1
        self._borders = packing["documents_in_fullest"] + 2 if packing else 0  # the start, and the padding's end
        self.rows = data.rows(split)

    def __len__(self) -> int:
        return ENDLESS

    def work(self, row: int) -> int:
        """What attention has to do for a row, or for a pack of rows, in squared positions."""
        rows = [row] if self._packs is None else self._packs[row].tolist()
        return sum((int(self._tokens.lengths[one]) - 1) ** 2 for one in rows)

    def _sample(self, row: int | None) -> dict[str, Tensor]:
        """Row `row`, shifted and padded; padding is told by its place. None gives a sample without loss."""
        if self._packs is not None:
            return self._packed([] if row is None else self._packs[row].tolist())
        inputs = np.full(self._seq_length, self._pad_id, dtype=np.int64)
        labels = inputs.copy()
        loss_mask = np.zeros(self._seq_length, dtype=np.float32)
        length = 0
        if row is not None:
            tokens: NDArray[Any] = self._tokens[row]
            length = len(tokens) - 1
            inputs[:length] = tokens[:-1]
            labels[:length] = tokens[1:]
            # Shifted with the labels: whether a label is trained on, not whether an input is.
            loss_mask[:length] = self._masks[row][1:]
        return {
            "tokens": torch.from_numpy(inputs),
            "labels": torch.from_numpy(labels),
            "loss_mask": torch.from_numpy(loss_mask),
            "position_ids": torch.arange(self._seq_length, dtype=torch.int64),
            "length": torch.tensor(length),
        }

    def _packed(self, rows: list[int]) -> dict[str, Tensor]:
        sample = lay_out(
            [(self._tokens[row], self._masks[row]) for row in rows],
            seq_length=self._seq_length,
            multiple=self._multiple,
            pad_id=self._pad_id,
            borders=self._borders,
        )
        return {key: torch.from_numpy(values) for key, values in sample.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """Samples in a global batch and in a micro-batch, and the data-parallel ranks that share the former."""

    whole: int
    micro: int
    ranks: int


class TrainSamples(_Samples):
    """Endless. The samples of a global batch are those that `order` gives it, arranged for the ranks."""

    def __init__(self, data: PreparedData, seq_length: int, order: Order, batching: Batching) -> None:
        super().__init__(data, "train", seq_length)
        self._order = order
        self._batching = batching
        self._batch = -1
        self._rows: list[int] = []

    def row_of(self, index: int) -> int:
        """The row that sample `index` is."""
        batch, place = divmod(index, self._batching.whole)
        return self._rows_of(batch)[place]

    def lengths_in(self, batch: int) -> list[int]:
        """Of the rows of global batch number `batch`, from 0, in positions that hold a token and no padding."""
        documents = [[row] if self._packs is None else self._packs[row].tolist() for row in self._rows_of(batch)]
        return [int(self._tokens.lengths[row]) - 1 for rows in documents for row in rows]

    def _rows_of(self, batch: int) -> list[int]:
        if batch != self._batch:
            size = self._batching.whole
            rows = [self._order[at] for at in range(batch * size, (batch + 1) * size)]
            self._rows = arrange(rows, self.work, self._batching.micro, self._batching.ranks)
            self._batch = batch
        return self._rows

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self._sample(self.row_of(index))


class ValidSamples(_Samples):
    """Endless: the same `eval_samples` samples over and over."""

    def __init__(self, data: PreparedData, seq_length: int, eval_samples: int) -> None:
        super().__init__(data, "valid", seq_length)
        if eval_samples < 1:
            raise UserError(f"an evaluation of {eval_samples} samples evaluates nothing", "set `eval.eval_iters`")
        self.eval_samples = eval_samples

    def row_of(self, index: int) -> int | None:
        """The row that sample `index` is, or None for a filler."""
        place = index % self.eval_samples
        if self.eval_samples < self.rows:
            return place * self.rows // self.eval_samples
        return place if place < self.rows else None

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self._sample(self.row_of(index))
