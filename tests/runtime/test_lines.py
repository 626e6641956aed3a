"""What pretrain() is told in each line of Megatron, without one; tests/acceptance/test_targets.py trains with all."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from sftc.runtime.errors import UserError
from sftc.runtime.megatron.lines import LINES, require_signature
from sftc.runtime.megatron.model import Model
from sftc.runtime.megatron.provider import OTHER_LAYERS, model_provider

PLAIN = Model(layer_spec=None, first_weights=None, adapt=None, variable_lengths=True)


def test_every_target_of_a_recipe_can_be_started(repo_root: Path) -> None:
    recipe = json.loads((repo_root / "schema/recipe.schema.json").read_text())
    assert list(LINES) == recipe["properties"]["megatron"]["properties"]["target"]["enum"]


def test_a_pretrain_that_takes_or_needs_something_else_is_refused() -> None:
    def pretrain(cfg_container: Any, forward_step_func: Any, store: Any = None) -> None: ...

    require_signature(pretrain, {"cfg_container": 1, "forward_step_func": 2}, "0.19")
    with pytest.raises(UserError, match=r"takes no `model_provider`") as caught:
        require_signature(pretrain, {"cfg_container": 1, "forward_step_func": 2, "model_provider": 3}, "0.18")
    assert "its version says 0.18" in str(caught.value.help)
    with pytest.raises(UserError, match=r"needs `forward_step_func`"):
        require_signature(pretrain, {"cfg_container": 1}, "0.19")


def test_layers_that_sftc_cannot_build_itself_are_refused(repo_root: Path) -> None:
    """Each is an option of an older line; its usual value, also that of a line without it, asks for nothing."""
    tables = [json.loads((repo_root / f"schema/megatron/{line}.json").read_text()) for line in ("0.17", "0.18")]
    defaults = {row["dest"]: row["default"] for table in tables for row in table["options"]}
    assert {name: defaults[name] for name in OTHER_LAYERS} == OTHER_LAYERS
    assert callable(model_provider(Namespace(**OTHER_LAYERS), PLAIN))
    assert callable(model_provider(Namespace(), PLAIN))
    for name in OTHER_LAYERS:
        with pytest.raises(UserError, match=f"`--{name.replace('_', '-')}` asks for layers") as caught:
            model_provider(Namespace(**OTHER_LAYERS | {name: "x"}), PLAIN)
        assert name in str(caught.value.help)


@pytest.mark.parametrize(("stages", "varying", "tells"), [(1, True, False), (2, True, True), (2, False, False)])
def test_pipeline_stages_tell_lengths_that_differ(stages: int, varying: bool, tells: bool) -> None:
    model = Model(layer_spec=None, first_weights=None, adapt=None, variable_lengths=varying)
    assert model.tells_lengths(Namespace(pipeline_model_parallel_size=stages)) is tells
