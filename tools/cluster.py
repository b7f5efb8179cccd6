"""A Ray cluster of three nodes on this machine; one is killed while they train a sweep.

    python tools/cluster.py [--epochs 300000]

The sweep is trained by threads as well, and all losses are compared, to the last bit. The exit code
is 1 where they differ.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from ray.cluster_utils import Cluster

import nnref
from nnref.studies.groups import Group
from nnref.studies.listeners import SweepListener

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
Group.together = 1  # a block for each run: there is something to hand out
CONTENT = {
    "data": "xor",
    "model": {"name": "mlp", "hidden": [3], "activation": "relu"},
    "loss": "squared_error",
    "optimizer": "sgd",
    "batch_size": 4,
    "seeds": [0, 1],
    "sweep": {"axes": {"optimizer.learning_rate": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}},
}


class Killer(SweepListener):
    """Kills a node when a sixth of the epochs is done."""

    def __init__(self, cluster: Cluster):
        self.cluster, self.left = cluster, 0.0

    def begins(self, epochs: int, done: int) -> None:
        self.left = epochs / 6

    def hears(self, epochs: int) -> None:
        before, self.left = self.left, self.left - epochs
        if before > 0 >= self.left:
            node = list(self.cluster.worker_nodes)[-1]
            print(f"node {node.node_id[:8]} is killed", flush=True)
            self.cluster.remove_node(node, allow_graceful=False)


def main() -> int:
    """Start, kill, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=300_000, help="of each of the twelve runs")
    epochs = parser.parse_args().epochs
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "twelve.json"
        path.write_text(json.dumps(CONTENT | {"epochs": epochs}))
        began = time.perf_counter()
        plain = nnref.sweep(path, logbook=None)
        print(f"threads: {len(plain.records)} runs in {time.perf_counter() - began:.1f} s")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX, of forks: Ray's are followed by another program
            cluster = Cluster(True, head_node_args={"num_cpus": 1})
            for _ in range(2):
                cluster.add_node(num_cpus=1)
        try:
            began = time.perf_counter()
            killer = Killer(cluster)
            swept = nnref.sweep(path, logbook=None, ray=cluster.address, listener=killer)
            print(f"three nodes, one killed: {time.perf_counter() - began:.1f} s")
        finally:
            cluster.shutdown()
    print(f"{swept.repeated} blocks were trained again")
    same = all(
        np.array_equal(values, swept.records[job].history[name], equal_nan=True)
        for job, record in plain.records.items()
        for name, values in record.history.items()
    )
    print("all losses are the same" if same else "THE LOSSES DIFFER")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
