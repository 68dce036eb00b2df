"""Writes one MLflow run: parameters, figures, tables, files and the data that it read, without passwords."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from xlt_ray.job import runs
from xlt_ray.job.secrets import redacted

if TYPE_CHECKING:  # see xlt_ray.job.runs
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

_NOTE = "mlflow.note.content"
_CONTEXT = "mlflow.data.context"  # the UI shows it beside a dataset
_PARAM_LIMIT = 6000  # characters of one value that MLflow 3 stores
_DIGEST_LIMIT = 36  # characters of a digest that MLflow 3 stores; SHA-256 has 64, which are in the profile
_NAME_LIMIT = 500  # characters of the name of a dataset
_METRICS_LIMIT = 1000  # numbers in one request


class MlflowTracker:
    """Writes to one run with a client of its own, because MLflow's global state would leak into the environment.

    If something can't be written, it is missing in the run, but not in the artifact. The first failure is printed, and
    kept in `problem`.

    Attributes:
        problem: why something is missing.
        model: the run of the model to which this run belongs.
    """

    def __init__(self, client: MlflowClient, run_id: str, root: str, ended_ago: float = 0.0) -> None:
        self.problem: str | None = None
        self.model: MlflowTracker | None = None
        self._client, self._run_id, self._root, self._is_gone = client, run_id, root, False
        self._ended_ago = ended_ago

    def _try(self, write: Callable[..., object], *values: Any) -> None:
        """Write to the run, unless the server is gone: a call to a server that does not answer takes 20 s."""
        if self._is_gone:
            return
        try:
            write(self._run_id, *values)
        except Exception as error:  # those of MLflow, of its database, of HTTP, of a store of files
            self._is_gone = not runs.answers(self._client)
            if not self.problem:
                self.problem = runs.reason(error)
                runs.lose(self._root, f"a run can't be written ({self.problem})")

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log nested settings."""
        from mlflow.entities import Param

        self._try(self._client.log_batch, (), [Param(*item) for item in flatten(values).items()])

    def reopen(self) -> None:
        """Keep the run open."""
        self._try(self._client.update_run, "RUNNING")

    def end(self, status: str) -> None:
        """Close the run, and that of the model. A run with missing data is marked as failed."""
        problem = self.problem or (self.model.problem if self.model else None)
        time_ms = int(1000 * (time.time() - self._ended_ago))
        # A place that is gone is asked once more, and not for long.
        with contextlib.suppress(Exception), runs.impatient() if self._is_gone else contextlib.nullcontext():
            self._client.set_terminated(self._run_id, "FAILED" if problem else status, time_ms)
        if self.model:
            self.model.end("FAILED" if problem else status)

    def describe(self, markdown: str) -> None:
        """Set the description that the UI shows at the top of the run."""
        self._try(self._client.set_tag, _NOTE, redacted(markdown))

    def metrics(self, values: Mapping[str, float]) -> None:
        """Log all numbers in one request, with the time of the end of the work: the UI shows the latest value."""
        from mlflow.entities import Metric

        then = int(1000 * (time.time() - self._ended_ago))
        self._try(self._client.log_batch, [Metric(key, float(value), then, 0) for key, value in values.items()])

    def of_model(self, values: Mapping[str, float]) -> None:
        """Log numbers to the run of the model, with its settings."""
        if self.model and values:
            self.model.metrics(values)

    def curve(self, key: str, points: Iterable[tuple[int, float]]) -> None:
        """Log all points, with as many in a request as MLflow accepts."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [Metric(key, float(value), now, int(step)) for step, value in points]
        for first in range(0, len(rows), _METRICS_LIMIT):
            self._try(self._client.log_batch, rows[first : first + _METRICS_LIMIT])

    def figure(self, figure: Any, file: str) -> None:
        """Log a figure as an image file."""
        self._try(self._client.log_figure, figure, file)

    def table(self, columns: Mapping[str, list[Any]], file: str) -> None:
        """Log a table that the UI can show and compare."""
        shown = {name: [_cell(value) for value in values] for name, values in columns.items()}
        self._try(self._client.log_table, shown, file)

    def datasets(self, corpus: str, rows: Mapping[str, Mapping[str, Any]], index: str) -> None:
        """Log the data that was read as MLflow inputs, one for each split."""
        inputs = [_dataset(corpus, split, content, index) for split, content in rows.items()]
        if inputs:
            self._try(self._client.log_inputs, inputs)

    def checkpoint(self, uri: str) -> None:
        """Set the tag `checkpoint`, on the run of the model too."""
        self._try(self._client.set_tag, "checkpoint", redacted(uri))
        if self.model:
            self.model.checkpoint(uri)

    def register(self, model: str, uri: str) -> str | None:
        """Create the model if it does not exist, and the version of it that refers to `uri` and to this run."""
        if self._is_gone:
            return self.problem
        try:
            if not self._client.search_registered_models(f"name = '{model}'"):
                self._client.create_registered_model(model)
            versions = self._client.search_model_versions(f"name = '{model}'")
            if (self._run_id, uri) not in {(version.run_id, version.source) for version in versions}:
                self._client.create_model_version(model, uri, self._run_id)
        except Exception as error:  # as above
            return runs.reason(error)
        return None


def _dataset(corpus: str, split: str, content: Mapping[str, Any], index: str) -> DatasetInput:
    """The rows of one split; their source is the index that names them, which `mlflow.data.get_source` finds."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    place = redacted(index)
    scheme = urlsplit(place).scheme
    dataset = Dataset(
        name=redacted(corpus)[:_NAME_LIMIT],
        digest=str(content["sha256"])[:_DIGEST_LIMIT],
        source_type=scheme or "local",
        source=json.dumps({"uri": place}),
        profile=json.dumps({"split": split, **content}),
    )
    return DatasetInput(dataset, [InputTag(_CONTEXT, split)])


def _cell(value: Any) -> Any:
    return redacted(value) if isinstance(value, str) else value


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted keys, each value cut to what MLflow stores, and without passwords."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else value
            flat[prefix + key] = redacted(str(text))[:_PARAM_LIMIT]
    return flat
