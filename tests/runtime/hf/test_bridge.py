"""Families that have no table are handed over to Megatron-Bridge: here a fake one, which says what it was asked for.

The real one needs CUDA and Transformer Engine, which no test can assume.
"""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from build_dir import write_build

from sftc.runtime.bundle import read_bundle
from sftc.runtime.checkpoint.start import decide
from sftc.runtime.errors import UserError
from sftc.runtime.hf import bridge

# In the place of `from megatron.bridge import AutoBridge`; what it makes looks like a Megatron checkpoint.
FAKE = """\
import sys
from pathlib import Path


class AutoBridge:
    @classmethod
    def import_ckpt(cls, model, target):
        if "broken" in model:
            raise ValueError("no bridge for this architecture")
        folder = Path(target, "iter_0000000")
        folder.mkdir(parents=True)
        (folder / "metadata.json").write_text("{}")
        Path(target, "latest_checkpointed_iteration.txt").write_text("0")
        Path(target, "calls").open("a").write(model + "\\n")

    @classmethod
    def from_hf_pretrained(cls, model):
        cls.model = model
        return cls()

    def export_ckpt(self, checkpoint, target):
        Path(target, "config.json").write_text(f"{self.model} {checkpoint}")
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of a family without a table, and the fake bridge on the path of new processes."""
    package = tmp_path / "fake/faked_bridge"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    for name in ("IMPORT", "EXPORT"):
        program = getattr(bridge, name)
        assert "from megatron.bridge import AutoBridge" in program
        monkeypatch.setattr(bridge, name, program.replace("megatron.bridge", "faked_bridge"))
    monkeypatch.setattr(bridge, "is_installed", lambda: True)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3"}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_it_is_converted_once_and_started_from(foreign: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = bridge.import_checkpoint(foreign, store)
    again = bridge.import_checkpoint(foreign, store)
    made = bridge.converted(foreign, store)
    assert (made / "calls").read_text() == f"{foreign}\n", "asked for once"
    assert first.startswith(f"Megatron-Bridge converted `{foreign}` to `{made}`")
    assert again == f"Megatron-Bridge has converted `{foreign}` to `{made}` before"

    values = {"model.load": f"hf:{foreign}", "model.init": None, "data.store_path": str(store)}
    start = decide(read_bundle(write_build(tmp_path / "build", values=values)), 8)
    assert (start.kind, start.iteration, start.weights) == ("weights", 0, None)
    assert start.arguments == ("--pretrained-checkpoint", str(made))


def test_other_weights_are_another_checkpoint(foreign: Path, tmp_path: Path) -> None:
    before = bridge.converted(foreign, tmp_path / "store")
    (foreign / "model-2.safetensors").write_bytes(b"more")
    assert bridge.converted(foreign, tmp_path / "store") != before


def test_export_goes_through_it_as_well(foreign: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    bridge.export_checkpoint(foreign, tmp_path / "iter_0000005", tmp_path / "out")
    assert (tmp_path / "out/config.json").read_text() == f"{foreign} {tmp_path / 'iter_0000005'}"


def test_its_failure_is_told_and_leaves_nothing(foreign: Path, tmp_path: Path) -> None:
    broken = foreign.rename(tmp_path / "broken")
    with pytest.raises(UserError) as raised:
        bridge.import_checkpoint(broken, tmp_path / "store")
    assert "ValueError: no bridge for this architecture" in raised.value.message
    assert not bridge.converted(broken, tmp_path / "store").exists()


def test_without_it_a_family_without_a_table_is_refused_with_the_remedy(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "is_installed", lambda: False)
    values = {"model.load": f"hf:{foreign}", "model.init": None, "data.store_path": "store"}
    start = decide(read_bundle(write_build(tmp_path / "build", values=values)), 8)
    assert start.weights == foreign
    from sftc.runtime.hf.config import read_config

    with pytest.raises(UserError) as raised:
        read_config(foreign)
    assert "pip install 'sftc[bridge]'" in str(raised.value)


def test_families_with_a_table_stay_here(foreign: Path) -> None:
    (foreign / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert not bridge.is_foreign(foreign)
