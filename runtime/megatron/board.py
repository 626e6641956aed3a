"""TensorBoard, through Megatron's own writer, which the last rank has."""

from collections.abc import Mapping


def write_scores(iteration: int, scores: Mapping[str, float | None]) -> None:
    """Under names such as Megatron gives what it evaluates itself: `exact_match validation`."""
    from megatron.training.global_vars import get_tensorboard_writer

    if (writer := get_tensorboard_writer()) is None:
        return
    for name, value in scores.items():
        if value is not None:
            writer.add_scalar(f"{name} validation", value, iteration)
    writer.flush()  # Megatron never does, and the training may end here
