"""The devices that `launch.hardware` may name. Reads schema/hardware.json, which says what each figure is."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from .schemas import load_schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One kind of device: memory in bytes, dense matrix rates in FLOP/s by precision, bandwidths in bytes/s.

    `interconnect` is what one device sends to the others of its node, per direction.
    """

    key: str
    name: str
    sold_as: str
    memory: int
    peak: Mapping[str, float | None]
    bandwidth: float
    interconnect: float
    interconnect_kind: str
    source: str

    @property
    def is_amd(self) -> bool:
        return self.name.startswith("AMD ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """A variable that the vendor of `devices` asks for, where the condition `when` holds; None: always."""

    name: str
    value: str
    devices: tuple[str, ...]
    when: str | None
    reason: str
    source: str


@cache
def hardware_table() -> Mapping[str, Hardware]:
    """Every device, by the name that a recipe gives it."""
    rows = load_schema("hardware.json")["devices"]
    return {
        key: Hardware(
            key=key,
            name=row["name"],
            sold_as=row["sold_as"],
            memory=row["memory"],
            peak=row["peak"],
            bandwidth=row["bandwidth"],
            interconnect=row["interconnect"]["bandwidth"],
            interconnect_kind=row["interconnect"]["kind"],
            source=row["source"],
        )
        for key, row in rows.items()
    }


@cache
def tunings() -> tuple[Tuning, ...]:
    """Every variable that some device wants."""
    rows = load_schema("hardware.json")["variables"]
    return tuple(Tuning(**{**row, "devices": tuple(row["devices"])}) for row in rows)
