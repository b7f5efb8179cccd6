"""Compatibility: what is right alone in an experiment, and means nothing together."""

from nnref.data import Dataset
from nnref.errors import UserError
from nnref.experiment.experiment import Experiment
from nnref.experiment.schema import Reference
from nnref.parts.losses import LOSSES, takes_smoothing


def refuse_contradictions(experiment: Experiment, dataset: Dataset) -> None:
    """Refuse parts that contradict each other, or the data.

    Raises:
        UserError: for label smoothing under a loss without it, a schedule that watches the
            validation loss where nothing is validated, streams that do not go on, or a text that
            is read from its end.
    """
    loss, schedule = experiment.loss.name, getattr(experiment.schedule, "then", experiment.schedule)
    smoothed = experiment.regularization.label_smoothing is not None
    if smoothed and not (loss in LOSSES and takes_smoothing(LOSSES[loss])):
        able = [name for name, loss in LOSSES.items() if takes_smoothing(loss)]
        raise UserError(
            f"regularization.label_smoothing: {loss} has no classes to smooth; "
            f"leave it out, or use {' or '.join(able)}"
        )
    refuse_layers(experiment)
    if schedule.name == "reduce_on_plateau" and dataset.valid is None:
        raise UserError(
            "schedule: reduce_on_plateau watches the validation loss, and these data have no "
            "validation split; give data.valid a share, or take another schedule"
        )
    refuse_streams(experiment, dataset)
    if dataset.unit is not None and getattr(experiment.model, "bidirectional", False):
        raise UserError(
            "model.bidirectional: read from its end, a text has told each next character already"
        )


def refuse_layers(experiment: Experiment) -> None:
    """Refuse terms that nnref puts between layers, for a model of a user's own.

    Raises:
        UserError: for dropout and normalization.
    """
    if not isinstance(experiment.model, Reference):
        return
    terms = experiment.regularization
    between = {"dropout": terms.dropout, "normalization": terms.normalization}
    for name, term in between.items():
        if term is not None:
            raise UserError(
                f"regularization.{name}: it stands between the layers of nnref's own models; "
                f"write it into {experiment.model.name}"
            )


def refuse_streams(experiment: Experiment, dataset: Dataset) -> None:
    """Refuse a state that is carried along rows which do not go on from one another.

    Raises:
        UserError: where data, model and batches have not the same streams, or rows are shuffled.
    """
    carried = getattr(experiment.model, "streams", None)
    streams = carried if dataset.unit is None else dataset.streams
    if carried is None and streams is None:
        return
    if not carried == streams == experiment.batch_size:
        raise UserError(
            f"streams: the data have {streams or 'none'}, model.streams is {carried or 'none'} and "
            f"batch_size {experiment.batch_size}; where a state is carried from batch to batch "
            "the three are the same number"
        )
    if experiment.shuffle:
        raise UserError(
            "shuffle: a state is carried from batch to batch, so that rows must come in their "
            "order; set it to false, or leave streams out"
        )
