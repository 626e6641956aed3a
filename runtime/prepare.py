"""What is done once per node before the ranks start: find the mistakes, turn the data into tokens."""

from pathlib import Path

from . import hooks, megatron, trackers
from .answers.overlap import require_libraries
from .answers.settings import Settings
from .bundle import read_bundle
from .checkpoint.owner import require_free
from .checkpoint.start import decide, hugging_face, origin, require_writable
from .device import choose
from .lock.verify import require_locked
from .progress import Counter, say


def run(build_dir: Path) -> None:
    """UserError for whatever would stop the ranks and can be known from files."""
    bundle = read_bundle(build_dir)
    say(f"`{bundle.path}` is as compiled, manifest {bundle.digest[:12]}")
    megatron.require_target(bundle.megatron_target)
    megatron.require_layers(bundle.value("model.transformer_impl"))
    megatron.require_extension(bundle.value("launch.max_inprocess_restarts", 0))
    trackers.require(bundle)
    if (answers := Settings.of(bundle.value)) is not None:
        require_libraries(answers.metrics)
    start = decide(bundle, bundle.value("train.train_iters"))
    require_writable(bundle)
    if save := bundle.value("checkpoint.save"):
        require_free(Path(save), bundle.name)
    begun = origin(bundle, start)
    if line := require_locked(bundle, reads_weights=begun.kind not in ("resume", "complete")):
        say(line)
    if (directory := hugging_face(bundle.value("model.load"))) and begun.checkpoint:
        from .hf.bridge import import_checkpoint

        say(import_checkpoint(directory, Path(bundle.value("data.store_path"))))
    if begun.weights is not None:
        from .hf.check import notices, open_model

        for notice in notices(open_model(begun.weights, bundle.value), bundle.value):
            say(notice)
    if bundle.value("launch.device") == "cuda":
        choose("cuda")
    for line in hooks.require(bundle.plan, bundle.path):
        say(line)
    if bundle.value("data.train_data_path") is None and bundle.value("data.sources") is None:
        say("the recipe names no rows: there is nothing to prepare")
        return

    from .data.prepare import prepare_run  # after the checks: it brings the tokenizers with it

    counter = Counter("preparing data")
    try:
        prepared = prepare_run(bundle.value, bundle.path, bundle.digest, counter, say)
    finally:
        counter.close()
    for notice in prepared.notices:
        say(notice)
    train, valid = prepared.samples("train"), prepared.samples("valid")
    state = "prepared" if prepared.is_new else "already prepared"
    say(f"data {state} in `{prepared.store}`: {train:,} training and {valid:,} validation samples")
    if answers is not None:
        from .answers.evaluate import Evaluation

        Evaluation(bundle, answers, prepared, reports=False)  # or every rank finds what cannot be asked or compared
