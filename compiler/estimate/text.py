"""An estimate for a terminal: a bar and a row for each pipeline stage, the work, the disk, and whether it fits."""

from collections.abc import Iterator, Sequence

from . import Estimate
from .advice import Advice
from .memory import CONTEXT, FRAGMENTS, GIB, GROUP, RankMemory
from .work import UTILIZATION

WIDTH = 56  # columns of a bar
# Attribute of RankMemory, sign without colour, SGR colour.
PARTS = (
    ("weights", "█", 34),
    ("gradients", "▓", 36),
    ("optimizer", "▒", 35),
    ("activations", "░", 32),
    ("logits", "=", 33),
    ("workspace", "+", 37),
    ("overhead", "-", 90),
)
SIZES = ("tp", "pp", "cp", "dp", "ep")


def render(found: Estimate, advice: Sequence[Advice], colour: bool = False) -> str:
    """The whole report, with a line feed at its end."""
    blocks = (_title(found), _bars(found, colour), _table(found), _work(found), _assumptions(found), _verdict(found))
    return "\n\n".join("\n".join(block) for block in blocks) + "\n" + "".join(_advice(found, advice))


def verdict(found: Estimate) -> str:
    """One line: fits or not, with the numbers."""
    need = gib(found.fullest.total)
    if found.limit is None:
        return f"needs {need} GiB on its fullest rank"
    word = "fits" if found.fits else "does not fit"
    return f"{word}: {need} of {gib(found.limit)} GiB on its fullest rank"


def gib(size: int) -> str:
    """Bytes as GiB: two digits behind the point for what is small."""
    amount = size / GIB
    if amount < 0.005:
        return "<0.01" if size else "0"
    return f"{amount:.2f}" if amount < 10 else f"{amount:.1f}"


def _title(found: Estimate) -> Iterator[str]:
    sizes = found.sizes
    layout = " * ".join(f"{name.upper()}({getattr(sizes, name)})" for name in SIZES[:4])
    experts = f", EP({sizes.ep})" if sizes.ep > 1 else ""
    device = f" on {found.hardware.name}" if found.hardware else ""
    yield f"{found.plan.name}: {layout} = {sizes.world} rank(s){experts}{device}"


def _bars(found: Estimate, colour: bool) -> Iterator[str]:
    most = max(found.fullest.total, found.limit or 0)
    scale = "a full bar is the fullest rank" if found.limit is None else f"a full bar is the {gib(most)} of the device"
    if found.limit is not None and not found.fits:
        scale = f"| is the {gib(found.limit)} of the device"
    yield f"memory of one rank in GiB; {scale}"
    for stage in found.stages:
        yield f"  {_label(found, stage)}  {_bar(stage, most, found.limit, colour)}  {gib(stage.total)}"
    yield "  " + "  ".join(f"{_paint(sign, code, colour)} {name}" for name, sign, code in PARTS)


def _bar(stage: RankMemory, most: int, limit: int | None, colour: bool) -> str:
    cells: list[str] = []
    reached = 0
    for name, sign, code in PARTS:
        reached += getattr(stage, name)
        # Rounding the sum, not each part, keeps the whole bar to scale.
        cells += [_paint(sign, code, colour)] * (round(reached / most * WIDTH) - len(cells))
    cells += ["·"] * (WIDTH - len(cells))
    if limit is not None and limit < most:
        cells.insert(round(limit / most * WIDTH), "|")
    return "".join(cells)


def _table(found: Estimate) -> Iterator[str]:
    names = [name for name, _, _ in PARTS]
    rows = [["GiB", "layers", "in flight", *names, "total"]]
    for stage in found.stages:
        parts = [gib(getattr(stage, name)) for name in names]
        rows.append([_label(found, stage), str(stage.layers), str(stage.in_flight), *parts, gib(stage.total)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        yield "  " + "  ".join([row[0].ljust(len(first)), *others])
    if any(stage.at_step for stage in found.stages):
        yield "  where there are no activations, a rank holds most when its optimizer steps"


def _work(found: Estimate) -> Iterator[str]:
    work, disk, duration = found.work, found.disk, found.duration
    active = "" if work.active_parameters == work.parameters else f", {_count(work.active_parameters)} active"
    trained = "" if work.trained_parameters == work.parameters else f", {_count(work.trained_parameters)} trained"
    yield f"parameters       {_count(work.parameters)}{active}{trained}"
    yield f"tokens           at most {_count(work.tokens_per_iteration)} an iteration (padding counted)"
    if work.tokens is None:
        yield "length           epochs: how many iterations they are is known when the data is prepared"
    else:
        yield f"length           {work.iterations} iterations, at most {_count(work.tokens)} tokens"
    each, whole = _count(work.flops_per_token), _count(work.flops_per_iteration)
    yield f"compute          {each}FLOP a token, {whole}FLOP an iteration"
    if duration is not None:
        worst, best = (f"{share:.0%}" for share in UTILIZATION)
        yield (
            f"time             {_seconds(duration.fastest)} to {_seconds(duration.slowest)} an iteration, at {best} to "
            f"{worst} of {_count(duration.rate)}FLOP/s ({duration.units})"
        )
        if work.iterations is not None:
            ends = (_seconds(work.iterations * each) for each in (duration.fastest, duration.slowest))
            yield f"                 {' to '.join(ends)} in all, without start, evaluation and saving"
    number = "as many as there will be" if disk.count is None else str(disk.count)
    total = "" if disk.count is None else f", {_size((disk.count + disk.is_pruned) * disk.checkpoint)} in all"
    more = ", and one while it is written" if disk.is_pruned else ""
    yield f"checkpoints      {number} of {_size(disk.checkpoint)}{more}{total}"


def _assumptions(found: Estimate) -> Iterator[str]:
    if not found.sizes.on_cpu:
        yield (
            f"assumed          overhead: {gib(CONTEXT)} GiB of driver and kernels, {gib(GROUP)} GiB for each kind of "
            "parallelism,"
        )
        yield f"                 {FRAGMENTS:.0%} of activations, logits and workspace for fragments"
    samples = "every sample is seq_length long"
    experts = "; every expert is visited equally often" if found.sizes.rows else ""
    yield ("assumed          " if found.sizes.on_cpu else "                 ") + samples + experts
    if found.sizes.not_followed:
        yield f"not followed     {', '.join(found.sizes.not_followed)}: the figures are without them"


def _verdict(found: Estimate) -> Iterator[str]:
    yield verdict(found)


def _advice(found: Estimate, advice: Sequence[Advice]) -> Iterator[str]:
    if found.fits is not False:
        return
    if not advice:
        yield f"no layout of {found.sizes.world} rank(s) was found that fits: take more of them, or a larger device\n"
    for one in advice:
        yield f"try {one}: {gib(one.needs)} GiB\n"


def _label(found: Estimate, stage: RankMemory) -> str:
    return f"stage {stage.stage:<{len(str(len(found.stages) - 1))}}"


def _count(number: float) -> str:
    """With a unit prefix: `8.03 G`; a bare number below a thousand."""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if number < 1000:
            return f"{number:.3g} {prefix}"
        number /= 1000
    return f"{number:.3g} Z"


def _size(size: int) -> str:
    """Bytes in the largest unit of which there is one."""
    amount, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.1f} {units[0]}"


def _seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172800 else f"{seconds / 86400:.0f} days"


def _paint(text: str, code: int, colour: bool) -> str:
    return f"\033[{code}m{text}\033[0m" if colour else text
