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
# Of ours to another side: what is compared, and the least or the most that the quotient may be.
TARGETS = (
    ("equal", "tokens_per_second", "trl", "at least", 1.3),
    ("equal", "tokens_per_second", "plain", "at least", 4.0),
    ("equal", "memory_bytes", "trl", "at most", 1.0),
    ("packed", "supervised_per_second", "trl", "at least", 1.3),
    ("packed", "memory_bytes", "trl", "at most", 1.0),
)


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
            lines.append(
                f"from launch.sh to the first iteration ({what}, data prepared): {sum(phases.values()):.1f} s = {parts}"
            )
    return lines


def verdicts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The quotients for which both sides were asked. `reached` is None where one of them has no figure."""
    found = []
    for table, what, other, sense, bound in TARGETS:
        for batch in sorted({row.batch for row in rows if row.table == table}):
            both = [row for row in rows if (row.table, row.batch) == (table, batch) and row.side in ("ours", other)]
            if len(both) < 2:
                continue
            one, two = sorted(both, key=lambda row: row.side != "ours")
            above, below = getattr(one, what), getattr(two, what)
            ratio = above / below if above and below else None
            reached = None if ratio is None else (ratio >= bound if sense == "at least" else ratio <= bound)
            found.append(
                {"table": table, "batch": batch, "what": what, "other": other}
                | {"ratio": ratio, "sense": sense, "bound": bound, "reached": reached}
            )
    return found


def spelt(verdict: dict[str, Any], *, judged: bool) -> str:
    names = {
        "tokens_per_second": "tokens/s",
        "supervised_per_second": "supervised tokens/s",
        "memory_bytes": "peak memory",
    }
    where = f"{TABLES[verdict['table']]}, global batch {verdict['batch']}"
    head = f"{names[verdict['what']]}, ours to {NAMES[verdict['other']]} ({where}): ratio"
    if verdict["ratio"] is None:
        return f"{head} not measured"
    state = ("ok" if verdict["reached"] else "NOT REACHED") if judged else "not judged, a rehearsal"
    return f"{head} {verdict['ratio']:.3f}, {verdict['sense']} {verdict['bound']}: {state}"
