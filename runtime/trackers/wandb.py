"""Weights & Biases. Its API key comes from the environment (WANDB_API_KEY) or `wandb login`; no recipe holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

from ..answers.answer import FILE
from ..answers.log import read

WITHOUT_A_KEY = ("offline", "disabled", "dryrun", "shared")

# How long W&B may keep lines before it writes them to its file. A kill of the process loses them.
FLUSH, FLUSH_SECONDS = "x_transaction_log_flush_interval", 1.0

ANSWERED = "valid/answers"  # their number, which each line of their scores has
COLUMNS = ("row", "question", "reference", "answer", "exact_match", "finish_reason", "tokens")


@dataclass(slots=True, kw_only=True)
class Wandb:
    """A run of W&B, in `wandb/` of the run directory. `mode` None leaves it to WANDB_MODE."""

    name = "W&B"
    key = "wandb"

    project: str
    entity: str | None
    run_name: str
    group: str | None
    tags: Sequence[str]
    mode: str | None
    notes: str | None
    config: Mapping[str, Any]
    run_path: Path
    _run: Any = field(init=False, default=None)

    def open(self, identity: str | None) -> str:
        import wandb

        settings = wandb.Settings(console="off", silent=True)
        if hasattr(settings, FLUSH):
            setattr(settings, FLUSH, FLUSH_SECONDS)
        mode: Any = self.mode or settings.mode
        if mode not in WITHOUT_A_KEY and wandb.api.api_key is None:
            # wandb would ask for it, on the terminal.
            raise LookupError("there is no API key: set WANDB_API_KEY, or `wandb login`")
        identity = identity or token_hex(4)
        self._run = wandb.init(
            id=identity,
            resume="allow",
            project=self.project,
            entity=self.entity,
            name=self.run_name,
            group=self.group,
            tags=list(self.tags),
            notes=self.notes,
            config=dict(self.config),
            dir=str(self.run_path),
            mode=mode,
            settings=settings,
        )
        # W&B's own step has to grow, also over the files of several offline starts: it counts the lines.
        self._run.define_metric("iteration", hidden=True)
        self._run.define_metric("*", step_metric="iteration")
        return identity

    def where(self) -> str:
        return f"offline, in `{self.run_path / 'wandb'}`" if self._run.offline else str(self._run.url)

    def held(self) -> None:
        """Offline there is nobody to ask; online the answer may lag behind."""

    def log(self, lines: Sequence[tuple[int, Mapping[str, float]]], *, before: int) -> None:
        for step, (iteration, measured) in enumerate(lines, start=before):
            answers = self._answers(iteration) if ANSWERED in measured else {}
            self._run.log({"iteration": iteration, **measured, **answers}, step=step, commit=True)  # or it waits

    def close(self, outcome: str) -> None:
        if outcome == "stopped":
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if outcome == "complete" else 1)

    def _answers(self, iteration: int) -> dict[str, Any]:
        """A table of them; nothing if the file has them no more."""
        import wandb

        rows = [
            [one.row, one.question, one.reference, one.answer, line.is_match, one.finish_reason, one.tokens]
            for line in read(self.run_path / FILE, {iteration})
            for one in (line.answer,)
        ]
        return {"answers": wandb.Table(columns=list(COLUMNS), data=rows)} if rows else {}
