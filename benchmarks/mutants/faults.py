"""All faults: one row for each way to bring a cause about."""

from benchmarks.mutants.data_faults import DATA_FAULTS
from benchmarks.mutants.loss_faults import LOSS_FAULTS
from benchmarks.mutants.network_faults import NETWORK_FAULTS
from benchmarks.mutants.number_faults import NUMBER_FAULTS
from benchmarks.mutants.planting import Fault
from benchmarks.mutants.training_faults import TRAINING_FAULTS

FAULTS: list[Fault] = [
    *DATA_FAULTS,
    *LOSS_FAULTS,
    *NUMBER_FAULTS,
    *NETWORK_FAULTS,
    *TRAINING_FAULTS,
]
