"""MLflow. What it needs to sign in comes from the environment (MLFLOW_TRACKING_TOKEN and the like)."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..answers.answer import FILE as ANSWERS
from ..record import epoch_seconds

STATUS = {"complete": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
MOST_METRICS, MOST_PARAMS = 1000, 100  # of one call of log_batch, MLflow's own limits
# In every line, and finite as a rule.
ALWAYS = {"train": "train/supervised_tokens", "valid": "valid/loss", "answers": "valid/answers"}
LONGEST = 6000  # characters of a parameter
DATABASE = re.compile(r"sqlite(?:\+\w+)?:///(?!:memory:|file:)(?P<path>[^?]+)")
ARTIFACTS = "mlruns"  # beside a database; MLflow's own name


@dataclass(slots=True, kw_only=True)
class Mlflow:
    """A run of MLflow. `tracking_uri` None leaves it to MLFLOW_TRACKING_URI."""

    name = "MLflow"
    key = "mlflow"

    tracking_uri: str | None
    experiment: str
    run_name: str
    tags: Mapping[str, str]
    notes: str | None
    config: Mapping[str, Any]
    run_path: Path
    _client: Any = field(init=False, default=None)
    _run_id: str = field(init=False, default="")

    def open(self, identity: str | None) -> str:
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it writes to stderr, which is the user's terminal
        self._client = MlflowClient(tracking_uri=self.tracking_uri)
        if identity is not None:
            self._run_id = identity
            self._client.update_run(identity, status="RUNNING")
            return identity
        found = self._client.get_experiment_by_name(self.experiment)
        experiment = found.experiment_id if found else self._new_experiment()
        tags = {**self.tags, **({"mlflow.note.content": self.notes} if self.notes else {})}
        self._run_id = str(self._client.create_run(experiment, run_name=self.run_name, tags=tags).info.run_id)
        self._log_config()
        return self._run_id

    def where(self) -> str:
        return f"experiment `{self.experiment}`, run {self._run_id}"

    def held(self) -> dict[str, int]:
        found = {kind: self._client.get_metric_history(self._run_id, name) for kind, name in ALWAYS.items()}
        return {kind: max((metric.step for metric in history), default=-1) for kind, history in found.items()}

    def log(self, lines: Sequence[tuple[int, Mapping[str, float]]], *, before: int) -> None:  # noqa: ARG002
        from mlflow.entities import Metric

        now = round(1000 * epoch_seconds())
        metrics = [
            Metric(name, float(value), now, iteration)
            for iteration, measured in lines
            for name, value in measured.items()
        ]
        for at in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self._run_id, metrics=metrics[at : at + MOST_METRICS])

    def close(self, outcome: str) -> None:
        self._client.set_terminated(self._run_id, status=STATUS[outcome])
        if (path := self.run_path / ANSWERS).is_file():
            self._client.log_artifact(self._run_id, str(path))

    def _new_experiment(self) -> str:
        """Artifacts lie beside an SQLite database: MLflow would put them where the run is launched, and no container
        mounts that. A server and a store of files have a place of their own.
        """
        database = DATABASE.match(self._client.tracking_uri)
        place = (Path(database["path"]).absolute().parent / ARTIFACTS).as_uri() if database else None
        return str(self._client.create_experiment(self.experiment, artifact_location=place))

    def _log_config(self) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)[:LONGEST]) for name, value in _flat(self.config) if value is not None]
        for at in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self._run_id, params=params[at : at + MOST_PARAMS])


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
