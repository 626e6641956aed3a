"""What `sftc eval` asks for. Loaded by name, by the command line; torch is the ranks' alone."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .. import process
from ..bundle import Bundle
from ..checkpoint.of_run import checkpoint_of, read_run, save_path
from ..data.commands import told
from ..data.prepare import POINTER, prepare
from ..data.settings import DataSettings
from ..data.store import read_summary
from ..errors import UserError
from ..progress import Counter, say
from ..record import FILE as RECORD
from ..record import packages, packages_of
from .answer import FILE
from .exact import compiled
from .job import RESULT, Job, world_size

PROBES = ("", "a 1")  # a pattern that finds the empty text in one of them finds it nearly everywhere
FORM = {"unfinished": ",.0f"}
COMPUTE = ("torch", "megatron-core", "transformer-engine")  # what answers depend on


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says; None is as the run has it. `data` is a file or directory of rows in the place of the
    run's validation rows.
    """

    run_path: Path
    iteration: int | None = None
    data: Path | None = None
    samples: int | None = None
    max_new_tokens: int | None = None
    answer_pattern: str | None = None
    output: Path | None = None


@told
def evaluate(asked: Asked) -> dict[str, Any]:
    """Evaluate, write the answers and the result, and return the result, `folder` with it."""
    _require_pattern(asked.answer_pattern)
    bundle, root = read_run(asked.run_path)
    _require_answers(bundle)
    if not root.is_dir():
        raise UserError(
            f"`{asked.run_path}` was started in `{root}`, which is not there",
            help="relative paths of its recipe, such as the tokenizer's, begin there: put it back, or a link to it",
        )
    save = save_path(asked.run_path, bundle, root)
    iteration = 0 if asked.iteration == 0 else checkpoint_of(save, asked.iteration)[1]
    store, name = _store(asked, bundle, root)
    stem = f"iteration-{iteration}" + (f"-{asked.data.stem}" if asked.data is not None else "")
    output = _made(asked.output or place(asked.run_path / "eval" / stem, name))
    job = Job(
        run_path=str(asked.run_path.absolute()),
        save=str(save.absolute()),
        iteration=iteration,
        store=str(store),
        data=name,
        output=str(output),
        samples=asked.samples,
        max_new_tokens=asked.max_new_tokens,
        answer_pattern=asked.answer_pattern,
    )
    if line := _outside(bundle, asked.run_path):
        say(line)
    with TemporaryDirectory(prefix="sftc-") as folder:
        path = Path(folder, "job.json")
        job.write(path)
        _run_ranks(path, world_size(bundle.value), output)
    result: dict[str, Any] = json.loads((output / RESULT).read_text(encoding="utf-8"))
    return {**result, "folder": str(output)}


def _outside(bundle: Bundle, run_path: Path) -> str | None:
    """What is different from the run where that had a container, which nobody starts here; None if there is nothing."""
    engine = bundle.value("launch.container.engine", None)
    if engine is None or "SFTC_IN_CONTAINER" in os.environ:
        return None
    here, there = packages(), packages_of(run_path)
    differ = [
        f"{name} {here.get(name, 'is missing')} here, {there[name]} there"
        for name in COMPUTE
        if name in there and here.get(name) != there[name]
    ]
    same = "torch and Megatron are those of the run" if there else "with the libraries of this environment"
    return f"sftc eval: outside of the run's container (`launch.container`, {engine}): {'; '.join(differ) or same}"


def _require_pattern(pattern: str | None) -> None:
    """As the compiler has it for `eval.generate.answer_pattern`."""
    if pattern is None:
        return
    try:
        found = compiled(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"`{pattern}` is no regular expression: {error}") from None
    if found.groups > 1:
        raise UserError(
            f"`{pattern}` has {found.groups} groups, and the answer is one of them",
            help="write `(?:...)` in the place of `(...)` for groups that only hold together",
        )
    if any(match[0] == "" for probe in PROBES if (match := found.search(probe))):
        raise UserError(f"`{pattern}` matches the empty text, and so is found where there is no answer")


def _require_answers(bundle: Bundle) -> None:
    """UserError where what is trained on is not the answer: the prompts would hold parts of it, or all would."""
    all_of_it = bundle.value("task.kind") == "pretrain" or bundle.value("data.loss_on") == "all"
    if all_of_it or bundle.value("data.loss_on_reasoning") is False:
        what = "every token" if all_of_it else "answers without their reasoning"
        raise UserError(
            f"the run `{bundle.name}` was trained on {what}: its rows do not show where an answer begins",
            help="only runs whose loss is taken on whole answers can be asked",
        )


def place(wanted: Path, data: str) -> Path:
    """`wanted`, or with a number behind it where the answers to other rows than `data` lie there: files in different
    directories may have one name.
    """
    folder, number = wanted, 1
    while _asked_in(folder) not in (None, data):
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def _asked_in(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / RESULT).read_text(encoding="utf-8"))["data"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _made(output: Path) -> Path:
    """The directory that gets the answers, without the result of an earlier evaluation, so that what is there at the
    end is of this one. UserError if it cannot be made, or is a run, whose own answers would be replaced.
    """
    output = output.absolute()
    if (output / RECORD).exists():
        raise UserError(
            f"`{output}` is a run, and its own `{FILE}` would be replaced", help="name another directory with -o"
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / RESULT).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"the answers cannot be written to `{output}`: {error.strerror}", help="see -o") from None
    return output


def table(result: Mapping[str, Any]) -> str:
    """For people."""
    values: Mapping[str, float | None] = result["values"]
    names = {name: name.replace("_", " ") for name in values if name != "answers"}
    width = max(map(len, names.values()))
    head = f"iteration {result['iteration']}, {values['answers']:,.0f} conversations of {result['data']}\n"
    lines = [f"  {text.ljust(width)}  {_shown(name, values[name])}\n" for name, text in names.items()]
    return head + "".join(lines) + f"answers  {Path(result['folder']) / FILE}\n"


def _shown(name: str, value: float | None) -> str:
    return "-" if value is None else format(value, FORM.get(name, ".4f"))


def _store(asked: Asked, bundle: Bundle, root: Path) -> tuple[Path, str]:
    """Where the prepared rows lie, and what they are called. Rows of a file are prepared as those of the run were."""
    if asked.data is None:
        try:
            store = root / json.loads((asked.run_path / POINTER).read_text(encoding="utf-8"))["store"]
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(
                f"`{asked.run_path}` does not say where its data lies", help="name rows with --data"
            ) from None
        summary = read_summary(store)
        if summary is None:
            raise UserError(f"the prepared data in `{store}` is gone", help="name rows with --data, or launch again")
        if "valid" not in summary["splits"]:
            raise UserError(f"`{asked.run_path}` has no validation rows", help="name rows with --data")
        return store.absolute(), "the validation data"
    if not asked.data.exists():
        raise UserError(f"there is no `{asked.data}`", help="--data names a file of rows, or a directory of such files")
    rows = str(asked.data.absolute())
    counter = Counter("preparing data")
    before = Path.cwd()
    os.chdir(root)  # where the paths of the plan begin
    try:
        settings = replace(
            DataSettings.from_plan(bundle.value, before / bundle.path),
            train_data_path=None,
            sources=(),
            valid_data_path=rows,
            valid_fraction=None,
        )
        prepared = prepare(settings, counter, say)
    except UserError as error:
        raise _of_rows(error, asked.data) from None
    finally:
        counter.close()
        os.chdir(before)
    for notice in prepared.notices:
        say(notice)
    return (root / prepared.store).absolute(), f"`{asked.data}`"


def _of_rows(error: UserError, data: Path) -> UserError:
    """Keys of the recipe are no remedy: rows are read as the run's own were, whatever its recipe says by now."""
    if "`data." not in (error.help or ""):
        return error
    return UserError(error.message, f"`{data}` is read as the rows of the run were: mend them, or leave them out of it")


def _run_ranks(job: Path, ranks: int, output: Path) -> None:
    """UserError if they fail; they have said why."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += ["--redirects=1", f"--log-dir={output / 'logs'}", "-m", "sftc.runtime", "eval", str(job)]
    watched = {process.WATCH: str(job.parent), process.WATCH_PID: str(os.getpid())}
    environment = {"OMP_NUM_THREADS": "1", "CUDA_DEVICE_MAX_CONNECTIONS": "1", **os.environ, "PYTHONSAFEPATH": "1"}
    report = job.with_name("torchrun")
    process.share_stderr()
    with report.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            command, stderr=file, env={**environment, **watched}, preexec_fn=process.die_with_parent, check=False
        )
    if done.returncode:
        if not (job.parent / process.FAILED).exists():
            sys.stderr.write(report.read_text(encoding="utf-8", errors="replace"))
        raise UserError(f"the evaluation failed, see `{output / 'logs'}`")
