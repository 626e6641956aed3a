"""What `gpu_speed.py` prints: a line for each case, and the quotients against their targets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from gpu_case import Case, Found

GIB = 1 << 30
NAMES = {"ours": "`bash launch.sh`", "plain": "plain Megatron", "trl": "TRL"}
TABLES = {"equal": "rows of equal length", "packed": "conversations in packs"}
COLUMNS = (
    "side",
    "global batch",
    "micro-batch",
    "iterations",
    "tokens/s",
    "supervised tokens/s",
    "TFLOP/s",
    "of matmul",
    "peak GiB",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a figure of ours may be at least or at most: divided by that of `other`, or itself where that is None."""

    table: str
    what: str
    other: str | None = None
    batch: int | None = None
    least: float | None = None
    most: float | None = None

    def is_reached(self, figure: float) -> bool:
        return (self.least is None or figure >= self.least) and (self.most is None or figure <= self.most)

    @property
    def bound(self) -> str:
        return f"at least {self.least}" if self.most is None else f"at most {self.most}"


TARGETS = (
    Target(table="equal", what="tokens_per_second", other="trl", batch=8, least=1.3),
    Target(table="equal", what="tokens_per_second", other="plain", least=4.0),
    Target(table="equal", what="share", batch=32, least=0.68),
    Target(table="equal", what="memory_bytes", other="trl", most=0.8),
    Target(table="equal", what="start", most=30.0),
    Target(table="packed", what="supervised_per_second", other="trl", least=1.5),
    Target(table="packed", what="memory_bytes", other="trl", most=0.8),
)
FIGURES = {
    "tokens_per_second": "tokens/s",
    "supervised_per_second": "supervised tokens/s",
    "memory_bytes": "peak memory",
    "share": "share of the matmul rate",
    "start": "seconds from launch.sh to the first iteration",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of a table; speeds are tokens a second. `failed` says why there are no figures."""

    side: str
    table: str
    batch: int
    micro: int | None = None
    tokens_per_second: float | None = None
    supervised_per_second: float | None = None
    tflops: float | None = None
    share: float | None = None
    memory_bytes: int | None = None
    counted: int = 0
    failed: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def start(self) -> float | None:
        """Seconds from launch.sh to the end of the first iteration, where they were noted."""
        return sum(phases.values()) if (phases := self.notes.get("start")) else None

    @classmethod
    def of(cls, case: Case, found: Found, peak: float) -> Self:
        """peak: TFLOP/s of the matrix products."""
        speed = found.speed(case)
        tflops = None if case.packed else speed * case.shape.flops_per_token / 1e12
        return cls(
            side=case.side,
            table="packed" if case.packed else "equal",
            batch=case.batch,
            micro=found.notes.get("micro", case.micro),
            tokens_per_second=speed,
            supervised_per_second=found.speed(case, "supervised"),
            tflops=tflops,
            share=None if tflops is None else tflops / peak,
            memory_bytes=found.memory_bytes,
            counted=case.counted,
            notes=found.notes,
        )


def as_table(rows: Sequence[Row]) -> list[str]:
    """In Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        cells = [NAMES[row.side] + (f", {how}" if (how := row.notes.get("how")) else ""), str(row.batch)]
        if row.failed:
            lines.append(f"| {' | '.join(cells)} | FAILED: {row.failed} |{'|' * (len(COLUMNS) - 3)}")
            continue
        memory = None if row.memory_bytes is None else row.memory_bytes / GIB
        supervised = row.supervised_per_second if row.table == "packed" else None
        cells += [str(row.micro), str(row.counted), figure(row.tokens_per_second, ",.0f"), figure(supervised, ",.0f")]
        cells += [figure(row.tflops, ",.4g"), figure(row.share, ".1%"), figure(memory, ".1f")]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def figure(value: float | None, style: str) -> str:
    return "" if value is None else format(value, style)


def starts(rows: Sequence[Row]) -> list[str]:
    """How long it took from launch.sh to the end of the first iteration, as far as the lines of the launch tell."""
    lines = []
    for row in rows:
        if phases := row.notes.get("start"):
            parts = " + ".join(f"{seconds:.1f} {name}" for name, seconds in phases.items())
            what = f"{TABLES[row.table]}, global batch {row.batch}"
            lines.append(f"from launch.sh to the first iteration ({what}, data prepared): {row.start:.1f} s = {parts}")
    return lines


def verdicts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A figure for each target of which all sides were asked. `reached` is None where a side has no figure."""
    found = []
    for target in TARGETS:
        for batch in sorted({row.batch for row in rows if row.table == target.table}):
            sides = {row.side: row for row in rows if (row.table, row.batch) == (target.table, batch)}
            if target.batch not in (None, batch) or not {"ours", target.other or "ours"} <= sides.keys():
                continue
            value = getattr(sides["ours"], target.what)
            if target.other is not None:
                beside = getattr(sides[target.other], target.what)
                value = value / beside if value and beside else None
            reached = None if value is None else target.is_reached(value)
            about = {"table": target.table, "batch": batch, "what": target.what, "other": target.other}
            found.append({**about, "figure": value, "bound": target.bound, "reached": reached})
    return found


def spelt(verdict: dict[str, Any], *, judged: bool) -> str:
    where = f"({TABLES[verdict['table']]}, global batch {verdict['batch']})"
    head = f"{FIGURES[verdict['what']]} {where}:"
    if verdict["other"] is not None:
        head = f"{FIGURES[verdict['what']]}, ours to {NAMES[verdict['other']]} {where}: ratio"
    if verdict["figure"] is None:
        return f"{head} not measured"
    state = ("ok" if verdict["reached"] else "NOT REACHED") if judged else "not judged, a rehearsal"
    return f"{head} {verdict['figure']:.3f}, {verdict['bound']}: {state}"
