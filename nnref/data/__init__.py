"""Data: arrays on the host, split, standardized and checked. No model, no optimizer.

A member of the family takes keyword arguments alone, which are the schema of the experiment file,
and returns a `Dataset`.
"""

from nnref.data.catalog import tfds
from nnref.data.digits import digits
from nnref.data.files import file
from nnref.data.papers import periodic_costs, signal, wilson
from nnref.data.prepare import Dataset, DataWarning, Split, Stored
from nnref.data.synthetic import adding, copy_memory, spirals, temporal_parity, xor
from nnref.data.text import python_topics, text

DATA = {
    "xor": xor,
    "spirals": spirals,
    "adding": adding,
    "copy_memory": copy_memory,
    "temporal_parity": temporal_parity,
    "digits": digits,
    "file": file,
    "tfds": tfds,
    "periodic_costs": periodic_costs,
    "wilson": wilson,
    "signal": signal,
    "python_topics": python_topics,
    "text": text,
}

__all__ = ["DATA", "DataWarning", "Dataset", "Split", "Stored"]
