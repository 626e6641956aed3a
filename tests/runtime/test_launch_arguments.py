"""How long a run is: stated, or the epochs of the prepared samples."""

from pathlib import Path
from typing import Any

import pytest
from build_dir import write_build

from sftc.runtime.bundle import Bundle, read_bundle
from sftc.runtime.errors import UserError
from sftc.runtime.launch import length


def bundle(folder: Path, **values: Any) -> Bundle:
    schedule = {"train.lr_warmup_iters": 0, "train.lr_decay_iters": None, "checkpoint.save_interval": None}
    given = {key.replace("__", "."): value for key, value in values.items()}
    return read_bundle(write_build(folder, values={**schedule, "train.global_batch_size": 64, **given}))


def test_iterations_that_are_stated(tmp_path: Path) -> None:
    found = length(bundle(tmp_path, train__train_iters=8), {"train_samples": 1000})
    assert (found.iterations, found.arguments, found.line) == (8, (), "")


@pytest.mark.parametrize(
    ("epochs", "samples", "iterations"),
    [(3, 7473, 351), (1, 64, 1), (1, 65, 2), (0.5, 128, 1), (1.1, 640, 11), (2, 10, 1)],
)
def test_iterations_follow_from_epochs(tmp_path: Path, epochs: float, samples: int, iterations: int) -> None:
    chosen = bundle(tmp_path, train__train_iters=None, train__epochs=epochs)
    found = length(chosen, {"train_samples": samples})
    assert found.iterations == iterations
    assert found.arguments == ("--train-iters", str(iterations), "--save-interval", str(iterations))


def test_the_arithmetic_is_shown(tmp_path: Path) -> None:
    found = length(bundle(tmp_path, train__train_iters=None, train__epochs=3), {"train_samples": 7473})
    assert found.line == "3 epochs of 7,473 samples in batches of 64: ceil(22,419 / 64) = 351 iterations"


def test_an_interval_that_is_stated_is_kept(tmp_path: Path) -> None:
    values = {"train__train_iters": None, "train__epochs": 1, "checkpoint__save_interval": 5}
    assert length(bundle(tmp_path, **values), {"train_samples": 640}).arguments == ("--train-iters", "10")


def test_a_warmup_longer_than_the_epochs(tmp_path: Path) -> None:
    values = {"train__train_iters": None, "train__epochs": 1, "train__lr_warmup_iters": 10}
    with pytest.raises(UserError, match=r"the warm-up \(10 iterations\).*1 epoch is 10 iterations") as refusal:
        length(bundle(tmp_path, **values), {"train_samples": 640})
    assert "`train.lr_warmup_fraction`" in str(refusal.value.help)
