"""Experiment: the text of a file, its schema, and the frozen object it becomes."""

from nnref.experiment.experiment import Experiment, Mistakes, parse, read

__all__ = ["Experiment", "Mistakes", "parse", "read"]
