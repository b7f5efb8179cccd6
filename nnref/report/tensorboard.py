"""TensorBoard: the same figures as event files, for those who have it open already.

A sink of figures is a `Listener`; another one is another file like this.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.logbook.index import settings_of
from nnref.studies.listeners import Listener
from nnref.training.loop import Chunk


class TensorBoardListener(Listener):
    """Writes a folder of events for each seed, with every measure of every epoch.

    Args:
        folder: in which the runs lie, as `tensorboard --logdir` is given it.
        name: of the experiment.

    Raises:
        UserError: where tensorboardX is not installed.
    """

    def __init__(self, folder: Path, name: str):
        try:
            import tensorboardX.summary
        except ImportError:
            raise UserError(
                '--tensorboard needs tensorboardX; install it: pip install "nnref[tensorboard]"'
            ) from None
        self.writer_of, self.hparams = tensorboardX.SummaryWriter, tensorboardX.summary.hparams
        self.folder, self.name = folder, name

    def begins(
        self, experiment: Experiment, seeds: Sequence[int], steps_per_epoch: int, note: str
    ) -> None:
        """Open the files of all seeds."""
        place = self.folder / self.name
        self.writers = [
            self.writer_of(str(place / f"{experiment.identity}-seed{seed}"), flush_secs=5)
            for seed in seeds
        ]
        self.latest: list[dict[str, float]] = [{} for _ in seeds]
        # It knows words and numbers alone.
        self.settings = {
            path: value if isinstance(value, str | float | int) else json.dumps(value)
            for path, value in settings_of(experiment.to_json()).items()
        }
        for writer in self.writers:
            writer.add_text("experiment", f"```json\n{experiment.to_json()}```", 0)

    def hears(self, chunk: Chunk) -> None:
        """Write the figures of a chunk, those after the end of a seed left out."""
        for name, values in chunk.history.items():
            split, _, measure = name.partition("_")
            tag = f"{measure}/{split}" if measure else name  # one chart for both splits
            for run, writer in enumerate(self.writers):
                for epoch in np.flatnonzero(chunk.active[:, run] & ~np.isnan(values[:, run])):
                    figure = float(values[epoch, run])
                    writer.add_scalar(tag, figure, chunk.first + int(epoch))
                    self.latest[run][f"final/{name}"] = figure

    def ends(self) -> None:
        """Write the settings beside the last figures, and close the files."""
        for writer, latest in zip(self.writers, self.latest, strict=True):
            if latest:
                # Not `add_hparams`, which makes a run of its own of them.
                file_writer: Any = writer.file_writer
                for summary in self.hparams(self.settings, latest):
                    file_writer.add_summary(summary)
                for tag, figure in latest.items():
                    writer.add_scalar(tag, figure, 0)
            writer.close()
