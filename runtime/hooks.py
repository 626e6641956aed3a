"""Functions of the user's own in the place of sftc's: loaded, called, and checked in what they return.

Whatever goes wrong in one is a UserError that names it; the traceback is in the log of the rank. What each is called
with and has to return is said in docs/hooks.md.
"""

import importlib
import inspect
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from importlib.util import module_from_spec, spec_from_file_location
from numbers import Integral, Real
from pathlib import Path
from types import ModuleType
from typing import Any

from .answers.answer import METRICS as OF_ANSWERS
from .errors import UserError
from .metrics import KEYS, PREFIX

METRIC = re.compile(r"[A-Za-z_]\w*")
# What metrics.jsonl calls its own figures, of the training and of an evaluation; with and without what comes before
# the names of an evaluation.
TAKEN = (*KEYS, *(f"{prefix}{name}" for prefix in ("", PREFIX) for name in ("loss", "answers")))


def hook(name: str, target: str, takes: str, beside: str) -> Callable[..., Any]:
    """The function `target` of `hooks.<name>`: `file.py:function`, a file that lies where the file `beside` does, or
    `package.module:function`. `takes` names the values that it is called with, by position.

    UserError if it is not there or cannot be called so.
    """
    said = f"`hooks.{name}` ({target})"
    function = _find(said, target, Path(beside).parent)
    _require_call(said, function, takes)
    check = _CHECKS[name](said)

    @wraps(function)
    def called(*values: Any) -> Any:
        try:
            result = function(*values)
        except Exception as error:
            if type(error).__name__ == "OutOfMemoryError":  # of torch: not the function's mistake
                raise
            raise UserError(
                f"{said} raised {type(error).__name__}: {error}{_line(error, target)}",
                help="the whole traceback is in the log of this rank",
            ) from error
        return check(result, values[0])

    return called


def hook_of(plan: Mapping[str, Any], name: str, build_dir: Path) -> Callable[..., Any] | None:
    """The function of `hooks.<name>` in a plan; None if it has none. UserError as `hook` has it."""
    for one in plan["hooks"]:
        if one["name"] == name:
            return hook(name, one["target"], ", ".join(one["takes"]), str(build_dir / "forward_step.py"))
    return None


def require(plan: Mapping[str, Any], build_dir: Path) -> list[str]:
    """Find and check every hook of a plan, and say which they are. UserError as `hook` has it."""
    for one in plan["hooks"]:
        hook_of(plan, one["name"], build_dir)
    return [f"`hooks.{one['name']}` is `{one['target']}`" for one in plan["hooks"]]


def _find(said: str, target: str, folder: Path) -> Callable[..., Any]:
    place, _, function = target.rpartition(":")
    try:
        module = _of_file(folder / place) if place.endswith(".py") else importlib.import_module(place)
    except Exception as error:
        where = _line(error, target) if place.endswith(".py") else ""
        raise UserError(
            f"{said} cannot be imported: {type(error).__name__}: {error}{where}",
            help="what it imports has to be installed where the run starts; sys.path holds no current directory",
        ) from error
    found = getattr(module, function, None)
    if not callable(found):
        what = "is not there" if found is None else f"is no function but {type(found).__name__}"
        raise UserError(f"{said} {what}")
    return found  # type: ignore[no-any-return]


_FILES: dict[Path, ModuleType] = {}


def _of_file(path: Path) -> ModuleType:
    """One module for each file, so that two hooks of one file share what it keeps."""
    path = path.resolve()
    if path not in _FILES:
        spec = spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        _FILES[path] = module
    return _FILES[path]


def _require_call(said: str, function: Callable[..., Any], takes: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # written in C, say: the first call will tell
    try:
        signature.bind(*takes.split(", "))
    except TypeError as error:
        raise UserError(f"{said} is called with ({takes}) and takes {signature}: {error}") from None


def _line(error: BaseException, target: str) -> str:
    """Where in the user's own file it happened."""
    name = target.rpartition(":")[0]
    if isinstance(error, SyntaxError):
        return f" ({name}:{error.lineno})"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).name == name]
    return f" ({name}:{lines[-1]})" if lines else ""


# What checks and completes a result, given what the hook was called with first.
type Check = Callable[[Any, Any], Any]


def _loss_check(said: str) -> Check:
    def check(result: Any, losses: Any) -> tuple[Any, Any]:
        """-> the sum as a float32 scalar, the number as an int32 scalar: Megatron adds the numbers up as int32. Both
        are where the losses are, for NCCL to reduce them.
        """
        import torch

        if not isinstance(result, tuple) or len(result) != 2:
            raise UserError(f"{said} has to return a sum and a number, it returned {_shown(result)}")
        total, number = result
        if not isinstance(total, torch.Tensor) or total.dim() != 0 or not total.is_floating_point():
            raise UserError(f"{said} has to return the sum as a scalar tensor, it returned {_shown(total)}")
        if torch.is_grad_enabled() and not total.requires_grad:
            raise UserError(f"{said} returned a sum without a gradient: nothing would be learnt")
        count = torch.as_tensor(number, device=losses.device)
        if count.dim() != 0 or count.is_floating_point():
            raise UserError(f"{said} has to return a whole number to divide by, it returned {_shown(number)}")
        return total.float().to(losses.device), count.to(torch.int32)

    return check


def _metrics_check(said: str) -> Check:
    names: set[str] = set()

    def check(result: Any, losses: Any) -> dict[str, Any]:
        """-> name → [2] float32, the sum and the count, which Megatron adds up before it divides; where the losses are,
        for NCCL to reduce them.
        """
        import torch

        if not isinstance(result, Mapping):
            raise UserError(f"{said} has to return a sum and a count for each name, it returned {_shown(result)}")
        _require_names(said, result, TAKEN)
        if names and names != set(result):
            raise UserError(f"{said} has to return the same names at each call: {sorted(names ^ set(result))} differ")
        names.update(result)
        pairs = {}
        for name, pair in result.items():
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise UserError(f"{said}: `{name}` needs a sum and a count, it has {_shown(pair)}")
            parts = [torch.as_tensor(part, dtype=torch.float32, device=losses.device).detach() for part in pair]
            if any(part.dim() for part in parts):
                raise UserError(f"{said}: `{name}` needs two scalars, it has {_shown(pair)}")
            pairs[name] = torch.stack(parts)
        return pairs

    return check


def _answer_metrics_check(said: str) -> Check:
    def check(result: Any, _: Any) -> dict[str, int | float]:
        """-> name → number, as JSON takes it; what is not finite stays so."""
        if not isinstance(result, Mapping):
            raise UserError(f"{said} has to return a number for each name, it returned {_shown(result)}")
        _require_names(said, result, OF_ANSWERS)
        for name, value in result.items():
            if isinstance(value, bool) or not isinstance(value, Real):
                raise UserError(f"{said}: `{name}` needs a number, it has {_shown(value)}")
        return {name: int(one) if isinstance(one, Integral) else float(one) for name, one in result.items()}

    return check


def _require_names(said: str, result: Mapping[Any, Any], taken: Sequence[str]) -> None:
    """`taken` are those of sftc's own figures."""
    if bad := [name for name in result if not isinstance(name, str) or not METRIC.fullmatch(name) or name in taken]:
        help = f"`{bad[0]}` is a figure of sftc's own" if bad[0] in taken else "letters, digits, underscores"
        raise UserError(f"{said}: `{bad[0]}` cannot be the name of a metric", help=help)


def require_apart(metrics: Iterable[str], scores: Iterable[str]) -> None:
    """UserError if a name of `hooks.metrics` is one of the scores of answers, or of `hooks.answer_metrics`: in
    metrics.jsonl both would have it.
    """
    if both := sorted(set(metrics) & set(scores)):
        whose = "a figure of sftc's own" if both[0] in OF_ANSWERS else "of `hooks.answer_metrics` as well"
        raise UserError(
            f"`{both[0]}` of `hooks.metrics` is {whose}, and both are `{PREFIX}{both[0]}` of the same iteration",
            help="return it by another name",
        )


def _step_check(said: str) -> Check:
    def check(result: Any, _: Any) -> Any:
        if not isinstance(result, tuple) or len(result) != 2 or not callable(result[1]):
            raise UserError(f"{said} has to return an output and the function that makes its loss: {_shown(result)}")
        return result

    return check


def _datasets_check(said: str) -> Check:
    def check(result: Any, _: Any) -> Any:
        if not isinstance(result, tuple) or len(result) != 3:
            raise UserError(f"{said} has to return three datasets (training, validation, test): {_shown(result)}")
        if result[0] is None:
            raise UserError(f"{said} returned no training dataset")
        return result

    return check


_CHECKS: Mapping[str, Callable[[str], Check]] = {
    "answer_metrics": _answer_metrics_check,
    "datasets_provider": _datasets_check,
    "loss": _loss_check,
    "forward_step": _step_check,
    "metrics": _metrics_check,
}


def _shown(value: Any) -> str:
    """A value in a message: tensors by their shape."""
    if isinstance(value, tuple | list):
        inside = ", ".join(_shown(one) for one in value)
        return f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a tensor {list(value.shape)} of {value.dtype}"
    return f"{type(value).__name__} {str(value)[:40]!r}"
