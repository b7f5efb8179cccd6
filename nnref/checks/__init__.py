"""Properties of networks and data to test: each raises an AssertionError where it does not hold."""

from nnref.checks.network import (
    all_parameters_train,
    gradients_match_finite_differences,
    is_causal,
    key_matters,
    learns,
    loss_at_start,
    loss_fits_outputs,
    loss_is_a_mean,
    no_dead_units_at_start,
    overfits_one_batch,
    padding_is_ignored,
    rows_are_independent,
    same_seed_same_bits,
    signal_at_start,
    survives_extreme_batches,
    train_and_eval_modes_differ_only_as_told,
)
from nnref.checks.rows import (
    data_splits_are_disjoint,
    data_summary,
    inverse_of_scaling,
    labels_belong_to_rows,
    train_statistics_only,
)
from nnref.checks.subject import NotApplicable, subject
from nnref.checks.suite import Checked, check

__all__ = [
    "Checked",
    "NotApplicable",
    "all_parameters_train",
    "check",
    "data_splits_are_disjoint",
    "data_summary",
    "gradients_match_finite_differences",
    "inverse_of_scaling",
    "is_causal",
    "key_matters",
    "labels_belong_to_rows",
    "learns",
    "loss_at_start",
    "loss_fits_outputs",
    "loss_is_a_mean",
    "no_dead_units_at_start",
    "overfits_one_batch",
    "padding_is_ignored",
    "rows_are_independent",
    "same_seed_same_bits",
    "signal_at_start",
    "subject",
    "survives_extreme_batches",
    "train_and_eval_modes_differ_only_as_told",
    "train_statistics_only",
]
