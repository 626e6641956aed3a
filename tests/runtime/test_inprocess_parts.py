"""What can be said of in-process restarts without ranks; tests/acceptance/test_inprocess.py has those."""

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError

import pytest

from sftc.runtime.errors import UserError
from sftc.runtime.megatron import inprocess


def says(release: str | None) -> Callable[[str], str]:
    def version(name: str) -> str:
        if release is None:
            raise PackageNotFoundError(name)
        return release

    return version


@pytest.mark.parametrize(
    ("release", "is_hidden"), [("0.4.1", True), ("0.5.0rc1", True), ("0.6.0", False), ("1.0", False), (None, False)]
)
def test_asynchronous_saving_is_hidden_where_it_is_too_old_for_megatron(
    monkeypatch: pytest.MonkeyPatch, release: str | None, is_hidden: bool
) -> None:
    monkeypatch.delitem(sys.modules, inprocess.SAVING, raising=False)
    monkeypatch.setattr(inprocess, "version", says(release))
    inprocess.hide_old_saving()
    assert (inprocess.SAVING in sys.modules) == is_hidden
    sys.modules.pop(inprocess.SAVING, None)


def test_restarts_without_the_extension_are_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inprocess, "find_spec", lambda _: None)
    inprocess.require_extension(0)
    with pytest.raises(UserError, match=r"`launch\.max_inprocess_restarts` needs nvidia-resiliency-ext") as found:
        inprocess.require_extension(2)
    assert "`pip install nvidia-resiliency-ext`" in str(found.value.help)
