"""Rows of the Hugging Face hub, through the real library `datasets`.

The hub itself cannot be had in a test: `load`, which asks it for a dataset by its name, takes a file here instead.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sftc.runtime.data import hub
from sftc.runtime.data.prepare import prepare
from sftc.runtime.data.settings import DataSettings
from sftc.runtime.errors import UserError

datasets = pytest.importorskip("datasets")

type Settings = Callable[..., DataSettings]
COMMIT = "0123456789" * 4


@pytest.fixture
def asked(
    tmp_path: Path, write_rows: Callable[..., Path], pair: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Any]]:
    """What was asked for; the answer is four rows, one of them bad."""
    path = write_rows("hub.jsonl", [pair("a", "b"), pair("c", "d"), {"messages": []}, pair("e", "f")])
    calls: list[Any] = []

    def load(*call: Any) -> Any:
        calls.append(call)
        return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(hub, "load", load)
    hub.dataset.cache_clear()
    yield calls
    hub.dataset.cache_clear()


def test_rows_of_the_hub_are_rows(settings: Settings, asked: list[Any]) -> None:
    address = f"hf://datasets/owner/name@{COMMIT}?config=main&split=test"
    prepared = prepare(settings(train_data_path=address, format="auto", on_bad_row="skip"))
    assert asked == [("owner/name", "main", "test", COMMIT)]
    train = prepared.summary["splits"]["train"]
    assert (train["rows"], train["kept"], sum(train["dropped"].values())) == (4, 3, 1)
    assert train["first_bad_rows"][0].startswith(f"{address}:3: ")
    assert not any("names no commit" in notice for notice in prepared.notices)
    again = prepare(settings(train_data_path="hf://datasets/owner/name", on_bad_row="skip"))
    assert not again.is_new
    assert any("`hf://datasets/owner/name` names no commit" in notice for notice in again.notices)


@pytest.mark.parametrize("address", ["hf://owner/name", "hf://datasets/", "hf://datasets/a/b?splits=x"])
def test_an_address_that_is_none(settings: Settings, address: str) -> None:
    with pytest.raises(UserError, match="is no address of a dataset"):
        prepare(settings(train_data_path=address))


def test_a_hub_that_is_not_there(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="cannot be loaded: ") as refusal:
        prepare(settings(train_data_path="hf://datasets/owner/name"))
    assert "download the rows to a file" in str(refusal.value.help)
