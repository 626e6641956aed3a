"""From what a run starts, for every state the directories can be in."""

from pathlib import Path
from typing import Any

import pytest
from build_dir import write_build

from sftc.runtime.bundle import Bundle, read_bundle
from sftc.runtime.checkpoint.start import claim, decide, other_data, require_writable
from sftc.runtime.errors import UserError


def checkpoint(root: Path, iteration: int | str, *, tracker: str | None = None, whole: bool = True) -> None:
    """What Megatron leaves: the shards, then metadata.json, then the tracker."""
    folder = root / (f"iter_{iteration:07d}" if isinstance(iteration, int) else iteration)
    folder.mkdir(parents=True)
    if whole:
        (folder / "metadata.json").write_text("{}")
    (root / "latest_checkpointed_iteration.txt").write_text(str(iteration) if tracker is None else tracker)


@pytest.fixture
def bundle_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Builds whose paths are relative to an empty directory, which is the current one."""
    monkeypatch.chdir(tmp_path)

    def make(**values: Any) -> Bundle:
        return read_bundle(write_build(Path("build"), values={key.replace("__", "."): v for key, v in values.items()}))

    return make


def test_nothing_there_is_a_random_start(bundle_of: Any) -> None:
    start = decide(bundle_of(), 8)
    assert (start.kind, start.iteration, start.arguments) == ("random", 0, ())
    assert "random weights" in start.line


def test_own_checkpoints_are_resumed_in_full(bundle_of: Any) -> None:
    bundle = bundle_of(model__load="given", checkpoint__finetune=False, checkpoint__no_load_optim=True)
    claim(bundle, "key")
    checkpoint(Path("run/checkpoints"), 5)
    start = decide(bundle, 8)
    assert (start.kind, start.iteration, start.arguments) == ("resume", 5, ())
    assert "at iteration 5 of 8, in full" in start.line


def test_the_last_iteration_is_the_end(bundle_of: Any) -> None:
    bundle = bundle_of()
    claim(bundle, "key")
    checkpoint(Path("run/checkpoints"), 8)
    assert decide(bundle, 8).kind == "complete"


def test_given_weights_start_at_iteration_0(bundle_of: Any) -> None:
    checkpoint(Path("given"), 100)
    start = decide(bundle_of(model__load="given"), 8)
    # megatron.args holds --pretrained-checkpoint already
    assert (start.kind, start.iteration, start.arguments) == ("weights", 0, ())


def test_a_release_has_weights(bundle_of: Any) -> None:
    checkpoint(Path("given"), "release")
    assert decide(bundle_of(model__load="given"), 8).kind == "weights"


@pytest.mark.parametrize(
    ("optim", "rng", "options", "said"),
    [
        (False, False, (), "in full"),
        (True, False, ("--no-load-optim",), "without its optimizer state and place in the learning-rate schedule"),
        (False, True, ("--no-load-rng",), "without its random state"),
        (
            True,
            True,
            ("--no-load-optim", "--no-load-rng"),
            "without its optimizer state and place in the learning-rate schedule and random state",
        ),
    ],
)
def test_a_given_state_is_continued(
    bundle_of: Any, optim: bool, rng: bool, options: tuple[str, ...], said: str
) -> None:
    checkpoint(Path("given"), 100)
    values = {"model__load": "given", "checkpoint__finetune": False}
    start = decide(bundle_of(**values, checkpoint__no_load_optim=optim, checkpoint__no_load_rng=rng), 8)
    assert (start.kind, start.iteration) == ("continue", 100)
    assert start.arguments == ("--load", "given", "--override-opt-param-scheduler", *options)
    assert start.line.endswith(said)


@pytest.mark.parametrize("finetune", [True, False])
def test_missing_weights_are_no_random_start(bundle_of: Any, tmp_path: Path, finetune: bool) -> None:
    with pytest.raises(UserError, match=r"`model\.load: given` holds no Megatron checkpoint") as caught:
        decide(bundle_of(model__load="given", checkpoint__finetune=finetune), 8)
    assert str(tmp_path) in str(caught.value.help)


def test_a_model_without_its_hf_is_told(bundle_of: Any) -> None:
    Path("given").mkdir()
    Path("given/config.json").write_text("{}")
    with pytest.raises(UserError, match="holds no Megatron checkpoint") as caught:
        decide(bundle_of(model__load="given"), 8)
    assert caught.value.help == "it is a Hugging Face model: write `load: hf:given`"


@pytest.mark.parametrize("finetune", [True, False])
def test_adapters_alone_are_no_model_to_start_from(bundle_of: Any, finetune: bool) -> None:
    checkpoint(Path("given"), 4)
    (Path("given") / "iter_0000004/.metadata").write_bytes(b"\x80a\x8c\x09lora_base\x94")
    with pytest.raises(UserError, match=r"`model\.load: given` holds adapters of LoRA") as caught:
        decide(bundle_of(model__load="given", checkpoint__finetune=finetune), 8)
    assert "sftc export" in str(caught.value.help)


def test_a_torn_checkpoint_is_named_with_the_last_whole_one(bundle_of: Any) -> None:
    bundle = bundle_of()
    claim(bundle, "key")
    save = Path("run/checkpoints")
    checkpoint(save, 3)
    checkpoint(save, 6, whole=False)
    with pytest.raises(UserError, match="names `iter_0000006`, which has neither") as caught:
        decide(bundle, 8)
    assert "`iter_0000003` is whole: `echo 3 > " in str(caught.value.help)


@pytest.mark.parametrize("text", ["", "garbage", "-1"])
def test_a_torn_tracker_is_an_error(bundle_of: Any, text: str) -> None:
    bundle = bundle_of()
    claim(bundle, "key")
    checkpoint(Path("run/checkpoints"), 3, tracker=text)
    with pytest.raises(UserError, match="names no iteration"):
        decide(bundle, 8)


def test_a_checkpoint_that_is_gone_is_an_error(bundle_of: Any) -> None:
    bundle = bundle_of()
    claim(bundle, "key")
    checkpoint(Path("run/checkpoints"), 3, tracker="7")
    with pytest.raises(UserError, match="`iter_0000007`, which is not there"):
        decide(bundle, 8)


def test_checkpoints_of_another_build_are_not_resumed(bundle_of: Any) -> None:
    claim(bundle_of(train__lr=0.1), "key")
    checkpoint(Path("run/checkpoints"), 3)
    with pytest.raises(UserError, match="of another build") as caught:
        decide(bundle_of(train__lr=0.2), 8)
    assert "logging.run_path" in str(caught.value.help)


@pytest.mark.parametrize(("rank", "goes_on"), [(None, True), (8, False)])
def test_adapters_are_not_told_to_go_on_from_another_build(bundle_of: Any, rank: int | None, goes_on: bool) -> None:
    claim(bundle_of(lora__rank=4), "key")
    checkpoint(Path("run/checkpoints"), 3)
    with pytest.raises(UserError, match="of another build") as caught:
        decide(bundle_of(lora__rank=rank), 8)
    assert ("`checkpoint.finetune: false`" in str(caught.value.help)) is goes_on


def test_checkpoints_of_nobody_known_are_not_resumed(bundle_of: Any) -> None:
    checkpoint(Path("run/checkpoints"), 3)
    with pytest.raises(UserError, match="of nobody known"):
        decide(bundle_of(), 8)


def test_a_claim_without_checkpoints_binds_nobody(bundle_of: Any) -> None:
    claim(bundle_of(train__lr=0.1), "key")
    assert decide(bundle_of(train__lr=0.2), 8).kind == "random"


def test_a_claim_that_cannot_be_written_leaves_the_one_before(bundle_of: Any) -> None:
    """A full disk at a resume must not take the checkpoints from the run."""
    bundle = bundle_of()
    claim(bundle, "key")
    checkpoint(Path("run/checkpoints"), 3)
    Path("run/checkpoints/sftc.json.tmp").mkdir()  # stands for whatever makes writing fail
    with pytest.raises(UserError, match=r"`run/checkpoints/sftc\.json` cannot be written"):
        claim(bundle, "key")
    assert decide(bundle, 8).kind == "resume"


def test_a_claim_names_the_data(bundle_of: Any) -> None:
    bundle = bundle_of()
    assert other_data(bundle, "one") is None
    claim(bundle, "one")
    assert (other_data(bundle, "one"), other_data(bundle, "two")) == (None, "one")


def test_a_place_where_no_checkpoint_can_be_written_is_told_before_anything_is_made(bundle_of: Any) -> None:
    require_writable(bundle_of())
    assert not Path("run").exists()
    Path("run").write_text("")
    with pytest.raises(UserError, match=r"`run/checkpoints` cannot be written: `.*/run` is a file"):
        require_writable(bundle_of())
