"""What `launch.hardware` exports, and what it may not touch."""

import pytest

from sftc.compiler.hardware import hardware_table, tunings
from sftc.compiler.launcher import CONDITIONS
from sftc.compiler.plan import Plan

MODEL = "preset: llama-2-7b"


def exported(plan: Plan) -> dict[str, str]:
    return {one.name: one.value for one in plan.environment}


def on(check, hardware: str | None, *more: str, transformer: str = "local") -> dict[str, str]:
    lines = [*more, f"hardware: {hardware}"] if hardware else list(more)
    tail = "".join(f"  {line}\n" for line in lines)
    split = "parallel:\n  tensor_model_parallel_size: 2\n  overlap_grad_reduce: true\n"
    checked = check(MODEL, f"transformer_impl: {transformer}", more=tail + split)
    assert checked.plan is not None, checked.diagnostics
    return exported(checked.plan)


def test_every_row_names_devices_of_the_table_a_condition_and_the_vendor() -> None:
    for one in tunings():
        assert set(one.devices) <= set(hardware_table())
        assert one.when in CONDITIONS
        assert one.source.startswith("https://")
    pairs = [(one.name, device) for one in tunings() for device in one.devices]
    assert len(pairs) == len(set(pairs))


def test_without_a_named_device_nothing_of_a_vendor_is_exported(check) -> None:
    names = set(on(check, None))
    assert names & {one.name for one in tunings()} == {"CUDA_DEVICE_MAX_CONNECTIONS"}


@pytest.mark.parametrize(
    ("hardware", "queues", "connections", "nvls"),
    [("MI300X", "2", "1", None), ("A100-80GB", None, "1", None), ("H100", None, "1", "0"), ("B200", None, "32", "0")],
)
def test_each_device_gets_what_its_vendor_asks_for(check, hardware, queues, connections, nvls) -> None:
    found = on(check, hardware)
    assert found["CUDA_DEVICE_MAX_CONNECTIONS"] == connections
    assert found.get("GPU_MAX_HW_QUEUES") == queues
    assert found.get("TORCH_NCCL_HIGH_PRIORITY") == (queues and "1")
    assert found.get("NCCL_NVLS_ENABLE") == nvls


def test_margins_are_for_transformer_engines_norms(check) -> None:
    assert "NVTE_FWD_LAYERNORM_SM_MARGIN" not in on(check, "H100")
    assert on(check, "H100", transformer="transformer_engine")["NVTE_FWD_LAYERNORM_SM_MARGIN"] == "16"


def test_the_recipe_has_the_last_word_and_a_cpu_none(check) -> None:
    found = on(check, "H100", 'environment: {NCCL_NVLS_ENABLE: "1"}')
    assert found["NCCL_NVLS_ENABLE"] == "1"
    assert not {one.name for one in tunings()} & set(on(check, "H100", "device: cpu"))
