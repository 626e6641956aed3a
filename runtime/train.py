"""One rank, from the build dir to the end of training."""

import os
import sys
from collections.abc import Callable
from functools import cache, partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from . import megatron, metrics, process, trackers
from .answers.settings import Settings
from .answers.shown import few
from .bundle import Bundle, read_bundle
from .checkpoint.keep import prune
from .checkpoint.start import claim, decide, origin, other_data
from .device import Device, choose, require_memory
from .errors import UserError
from .launch import arguments_of, evaluation, length
from .lora.settings import Settings as Lora
from .model import model_of
from .pointer import read_pointer
from .progress import Progress
from .record import RunRecord, keep_build
from .reporter import Reporter

# What is said at the end of what was learnt: the first value and the last one.
LEARNT = {"valid_loss": "validation loss {:.4f}", "valid_exact_match": "exact match {:.3g}"}


def run(build_dir: Path) -> None:
    """UserError for what the user or the machine has to mend; anything else that is raised is a crash."""
    bundle = read_bundle(build_dir)
    trackers.require(bundle)
    version = megatron.require_target(bundle.megatron_target)
    megatron.require_layers(bundle.value("model.transformer_impl"))
    megatron.require_extension(limit := bundle.value("launch.max_inprocess_restarts", 0))
    if limit:
        _device_of(bundle)  # before Megatron is imported
        arguments = bundle.path / "megatron.args"
        finish = megatron.restarting(partial(_attempt, bundle, version), limit=limit, arguments=arguments)
    else:
        finish = _attempt(bundle, version, megatron.Attempt())
    finish()


def _attempt(bundle: Bundle, version: str, attempt: megatron.Attempt) -> Callable[[], None]:
    """From the decision where to start to the last iteration; returns what is left to do once all ranks are there."""
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    reports = rank == world_size - 1  # the last rank is in the last pipeline stage, which knows the loss
    run_path = Path(bundle.value("logging.run_path"))
    stated = bundle.value("train.train_iters")
    start = decide(bundle, stated)
    pointer = read_pointer(bundle)
    whole = length(bundle, pointer)
    if stated is None:
        start = decide(bundle, whole.iterations)
    progress = Progress(whole.iterations)
    say = progress.say if reports else _keep_quiet
    if attempt.number:
        most = bundle.value("launch.max_inprocess_restarts")
        say(f"{attempt.why}: restarting in the same processes, {attempt.number} of {most}")
    say(start.line)
    if (lora := Lora.of(bundle.value)) is not None:
        say(f"LoRA of rank {lora.rank}: the weights of `model.load` are frozen")
    if whole.line:
        say(whole.line)
    data = Path(pointer["store"]).name if pointer["store"] else "of a hook"
    validation = evaluation(bundle, pointer)
    settings = Settings.of(bundle.value)
    is_evaluated = partial(metrics.is_evaluated, run_path, answers=settings is not None)
    if start.kind == "complete" and (not validation.iterations or is_evaluated(start.iteration)):
        say("nothing is left to do")
        return partial(_finish, bundle, start.iteration, reports, say)
    if start.kind == "resume" and (before := other_data(bundle, data)):
        say(f"WARNING: the rows or their preparation have changed: trained on {before} so far, from here on {data}")
    if validation.line:
        say(validation.line)

    compiled = bool(bundle.value("train.torch_compile", False))
    device = _device_of(bundle)
    where = f"{world_size} {'rank' if world_size == 1 else 'ranks'} on {device}"
    if device == "cpu" and bundle.value("launch.device") == "auto":
        where += ", because torch finds no GPU here (`launch.device: auto`)"
    say(f"Megatron {version}: {where}; setting up takes some seconds")
    if compiled:
        say("layers are compiled by torch: the first iterations take longer (`train.torch_compile`)")
    arguments = arguments_of(bundle, start, device, whole, validation)

    def pruned() -> None:
        if (count := bundle.value("checkpoint.keep")) is not None:
            _prune(Path(bundle.value("checkpoint.save")), count, say)

    observer, record = megatron.Observer(), None
    if reports:
        claim(bundle, data)
        keep_build(run_path, bundle.path, bundle.files)
        record = RunRecord(run_path, name=bundle.name, manifest=bundle.digest)
        record.started(
            start=start.kind, iteration=start.iteration, device=device, world_size=world_size, arguments=arguments
        )
        process.leave(process.REPORTS, "")
        whole_batch = [int(bundle.value("train.seq_length"))] * int(bundle.value("train.global_batch_size"))
        observer = Reporter(
            run_path,
            lengths_in=lambda _: whole_batch,
            ranks=world_size,
            progress=progress,
            prune=pruned,
            trackers=trackers.following(bundle, run_path, say),
            board=megatron.write_scores,
        )
    begun = origin(bundle, start)
    step = import_step(bundle.path / "forward_step.py")
    asking = _asking(bundle, settings, run_path, reports)
    outcome, why, reached = "failed", None, None
    try:
        iteration = megatron.train(
            arguments,
            step,
            model_of(bundle, begun, compiled=compiled),
            observer,
            fused_adam=bundle.value("train.fused_adam", False),
            asking=asking,
            store=attempt.store,
        )
        if compiled:
            say(megatron.compilations())
        outcome = "complete" if iteration >= whole.iterations else "stopped"
        reached = iteration
        why = process.requested() or megatron.stopped_by() if outcome == "stopped" else None
    except BaseException as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        if isinstance(error, UserError):
            why = error.message.splitlines()[0]
        elif megatron.is_interruption(error):
            why = "another rank has failed"
        raise
    finally:
        progress.close()  # what comes next on the terminal may be an error, on a line of its own
        observer.ended(outcome)
        if record is not None:
            record.ended(iteration=reached, outcome=outcome, why=why)
    if record is not None:
        pruned()  # the last one may have been written beside the training
    if outcome == "stopped":
        saved = "saved" if bundle.value("checkpoint.save") else "nothing saved: `checkpoint.save` is not set"
        process.leave(process.STOPPED, f"{iteration} of {whole.iterations}, {saved}")
        return lambda: None
    say(f"done: iteration {iteration}{_learnt(run_path)}")
    if reports:
        for text in few(run_path, iteration):
            say(text)
    return partial(_finish, bundle, iteration, reports, say)


def _finish(bundle: Bundle, iteration: int, reports: bool, say: Callable[[str], None]) -> None:
    if reports:
        _export(bundle, Path(bundle.value("logging.run_path")), iteration, say)
    say(_farewell(bundle))


def _device_of(bundle: Bundle) -> Device:
    compiled = bool(bundle.value("train.torch_compile", False))
    return _ready(bundle.value("launch.device"), bundle.value("launch.hardware"), compiled)


@cache
def _ready(asked: str, hardware: str | None, compiled: bool) -> Device:
    """The device of this process. At a second look torch would take the CPU's stand-ins for a GPU."""
    device = choose(asked)
    if device == "cuda":
        require_memory(hardware)
    else:
        from . import cpu

        cpu.activate()
        if compiled:
            cpu.let_compile()
    return device


def import_step(path: Path) -> ModuleType:
    """The generated module, under the name `forward_step`."""
    spec = spec_from_file_location("forward_step", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _asking(bundle: Bundle, settings: Settings | None, run_path: Path, reports: bool) -> megatron.Asking:
    on_start = bool(bundle.value("eval.eval_on_start"))
    if settings is None:
        return megatron.Asking(on_start=on_start)
    from .answers.evaluate import Evaluation
    from .data.dataset import PreparedData

    evaluation = Evaluation(bundle, settings, PreparedData.of_run(run_path), reports=reports)
    return megatron.Asking(ask=evaluation, at_ends=settings.when == "end", on_start=on_start)


def _export(bundle: Bundle, run_path: Path, iteration: int, say: Callable[[str], None]) -> None:
    if not bundle.value("checkpoint.export_hf"):
        return
    from .hf.export import Export, export, is_exported

    if not is_exported(run_path / "hf", manifest=bundle.digest, iteration=iteration):
        say(export(Export(run_path=run_path), run_path / "hf"))


def _prune(save: Path, keep: int, say: Callable[[str], None]) -> None:
    try:
        prune(save, keep)
    except OSError as error:
        say(f"WARNING: an old checkpoint stays, it cannot be removed: {error}")


def _learnt(run_path: Path) -> str:
    lines = metrics.read(run_path / metrics.FILE)
    text = ""
    for key, words in LEARNT.items():
        values = [line[key] for line in lines if line.get(key) is not None]
        if len(values) > 1:
            text += f", {words.format(values[0])} -> {words.rpartition(' ')[2].format(values[-1])}"
    return text


def _farewell(bundle: Bundle) -> str:
    """Where to look now."""
    return (
        f"  checkpoint   {bundle.value('checkpoint.save')}\n"
        f"  metrics      {Path(bundle.value('logging.run_path')) / metrics.FILE}\n"
        f"  TensorBoard  {bundle.value('logging.tensorboard_dir')}"
    )


def _keep_quiet(_: str) -> None: ...
