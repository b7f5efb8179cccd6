"""Sinks: trackers of runs that people have open already hear the same figures as the terminal."""

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.logbook.index import settings_of
from nnref.studies.listeners import Listener
from nnref.training.loop import Chunk


class Sink(Listener):
    """A run of a tracker for each seed, which gets every measure of every epoch.

    A tracker says how a run is opened, takes the figures of an epoch, and is closed.

    Args:
        name: of the experiment.

    Raises:
        UserError: where the library is not installed.
    """

    library = ""
    extra = ""

    def __init__(self, name: str):
        self.name, self.runs = name, []
        try:
            self.module: Any = import_module(self.library)
        except ImportError:
            raise UserError(
                f'{self.library} is not installed; install it: pip install "nnref[{self.extra}]"'
            ) from None

    def opened(self, name: str, experiment: Experiment, settings: dict[str, Any]) -> Any:
        """A run of this name; `settings` has words and numbers alone."""

    def log(self, run: Any, epoch: int, figures: dict[str, float]) -> None:
        """Take the figures of an epoch."""

    def closed(self, run: Any) -> None:
        """The run is over."""

    def begins(
        self, experiment: Experiment, seeds: Sequence[int], steps_per_epoch: int, note: str
    ) -> None:
        """Open a run for each seed; a UserError says what a tracker had against it."""
        settings = {
            path: value if isinstance(value, str | float | int) else json.dumps(value)
            for path, value in settings_of(experiment.to_json()).items()
        }
        with redirect_stdout(sys.stderr):  # trackers greet, and stdout may be for one JSON object
            for seed in seeds:
                run = f"{experiment.identity}-seed{seed}"
                try:
                    self.runs.append(self.opened(run, experiment, settings | {"seed": seed}))
                except Exception as error:  # whatever a tracker raises: no account, no server
                    raise UserError(f"{self.library}: {error}") from error

    def hears(self, chunk: Chunk) -> None:
        """Pass the figures of a chunk on, those after the end of a seed left out."""
        for place, run in enumerate(self.runs):
            for epoch in np.flatnonzero(chunk.active[:, place]):
                row = {name: float(values[epoch, place]) for name, values in chunk.history.items()}
                figures = {name: figure for name, figure in row.items() if not np.isnan(figure)}
                self.log(run, chunk.first + int(epoch), figures)

    def ends(self) -> None:
        """Close the runs."""
        with redirect_stdout(sys.stderr):
            for run in self.runs:
                self.closed(run)


class TensorBoardListener(Sink):
    """Writes a folder of events for each seed into a folder, as `tensorboard --logdir` takes it."""

    library, extra = "tensorboardX", "tensorboard"

    def __init__(self, folder: Path, name: str):
        super().__init__(name)
        self.folder, self.latest = folder, {}
        self.summaries = import_module("tensorboardX.summary")

    def opened(self, name: str, experiment: Experiment, settings: dict[str, Any]) -> Any:
        writer = self.module.SummaryWriter(str(self.folder / self.name / name), flush_secs=5)
        writer.add_text("experiment", f"```json\n{experiment.to_json()}```", 0)
        self.latest[writer] = settings, {}
        return writer

    def log(self, run: Any, epoch: int, figures: dict[str, float]) -> None:
        for name, figure in figures.items():
            split, _, measure = name.partition("_")
            tag = f"{measure}/{split}" if measure else name  # one chart for both splits
            run.add_scalar(tag, figure, epoch)
            self.latest[run][1][f"final/{name}"] = figure

    def closed(self, run: Any) -> None:
        settings, latest = self.latest[run]
        # Not `add_hparams`, which makes a run of its own of them.
        for summary in self.summaries.hparams(settings, latest) if latest else ():
            run.file_writer.add_summary(summary)
        for tag, figure in latest.items():
            run.add_scalar(tag, figure, 0)
        run.close()


class TrackioListener(Sink):
    """Logs to trackio, on this machine: `trackio show` draws it."""

    library = extra = "trackio"

    def opened(self, name: str, experiment: Experiment, settings: dict[str, Any]) -> Any:
        hardware = {"auto_log_gpu": False, "auto_log_cpu": False}
        run = self.module.init(self.name, name, config=settings, embed=False, **hardware)
        self.module.context_vars.current_run.set(None)  # else the next one would finish it
        return run

    def log(self, run: Any, epoch: int, figures: dict[str, float]) -> None:
        run.log(figures, step=epoch)

    def closed(self, run: Any) -> None:
        run.finish()


class MLflowListener(Sink):
    """Logs to MLflow, where MLFLOW_TRACKING_URI says; `mlflow ui` draws it."""

    library = extra = "mlflow"

    def opened(self, name: str, experiment: Experiment, settings: dict[str, Any]) -> Any:
        self.client = self.module.MlflowClient()
        found = self.client.get_experiment_by_name(self.name)
        place = found.experiment_id if found else self.client.create_experiment(self.name)
        run = self.client.create_run(place, run_name=name).info.run_id
        for key, value in settings.items():
            self.client.log_param(run, key.replace("$", ""), value)
        return run

    def log(self, run: Any, epoch: int, figures: dict[str, float]) -> None:
        for name, figure in figures.items():
            self.client.log_metric(run, name, figure, step=epoch)

    def closed(self, run: Any) -> None:
        self.client.set_terminated(run)


class WandbListener(Sink):
    """Logs to Weights & Biases; with WANDB_MODE=offline to files, which `wandb sync` sends."""

    library = extra = "wandb"

    def opened(self, name: str, experiment: Experiment, settings: dict[str, Any]) -> Any:
        return self.module.init(project=self.name, name=name, config=settings, reinit="create_new")

    def log(self, run: Any, epoch: int, figures: dict[str, float]) -> None:
        run.log(figures, step=epoch)

    def closed(self, run: Any) -> None:
        run.finish()


TRACKERS = {"trackio": TrackioListener, "mlflow": MLflowListener, "wandb": WandbListener}
