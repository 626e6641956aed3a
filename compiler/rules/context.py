"""What a rule sees: values by dotted key, and the places to report at."""

from dataclasses import dataclass
from typing import Any

from ..diagnostics import Diagnostic, Related, Severity, Span
from ..loader import RecipeDocument
from ..plan import Derived, FromRecipe, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A plan beside the recipe that it comes from."""

    plan: Plan
    document: RecipeDocument

    def __getitem__(self, key: str) -> Any:
        return self.plan[key]

    def stated(self, key: str) -> bool:
        """Whether the recipe itself says so, rather than a default or a derivation."""
        return isinstance(self.plan.values[key].origin, FromRecipe) and self.plan[key] is not None

    def derived(self, key: str) -> bool:
        """Whether the value follows from other keys."""
        return isinstance(self.plan.values[key].origin, Derived)

    def place(self, key: str) -> Span | None:
        """The value of `key` in the recipe, or the key of the nearest section that is there."""
        pointer = "/" + key.replace(".", "/")
        if place := self.document.places.get(pointer):
            return place.value
        while pointer := pointer.rpartition("/")[0]:
            if place := self.document.places.get(pointer):
                return place.key
        return None

    def error(
        self,
        code: str,
        key: str,
        message: str,
        *,
        also: tuple[str, ...] = (),
        help: str | None = None,
        severity: Severity = Severity.ERROR,
    ) -> Diagnostic:
        """A report at `key`; the keys of `also` that the recipe states are shown as related places."""
        related = tuple(
            Related(message=f"`{other}` is {_as_yaml(self[other])}", span=self.place(other))
            for other in also
            if self.stated(other)
        )
        return Diagnostic(
            code=code,
            severity=severity,
            message=message,
            span=self.place(key),
            pointer="/" + key.replace(".", "/"),
            help=help,
            related=related,
        )

    def warning(
        self, code: str, key: str, message: str, *, also: tuple[str, ...] = (), help: str | None = None
    ) -> Diagnostic:
        """The same, for what may be meant."""
        return self.error(code, key, message, also=also, help=help, severity=Severity.WARNING)


def _as_yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
