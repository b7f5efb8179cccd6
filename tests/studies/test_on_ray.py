"""Sweeps on Ray: the same as without it, whoever dies, and mistakes in a sentence."""

import json
import os
import re
import signal
import subprocess
import sys
import warnings

import pytest
from small import ABLATION, NET, XOR_SWEEP, changed, same_records

from nnref import cli
from nnref.errors import UserError
from nnref.studies import groups, on_node, on_ray, sweep
from nnref.studies.ablation import ablate
from nnref.studies.cluster import connected
from nnref.studies.listeners import SweepListener
from nnref.studies.reproduction import reproduce
from nnref.studies.sweep_record import plan_sweep

CONTENT = XOR_SWEEP  # of `file`: nine variants in two groups
STAMPS = re.compile(r"^// (started|ended|continued|commit|sha256): .*\n", re.MULTILINE)
HEALTH = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}


@pytest.fixture(scope="module")
def cluster():
    """Three nodes of one core, each with processes of its own; this process is connected."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX, of forks
        started = Cluster(True, head_node_args={"num_cpus": 1, "_system_config": HEALTH})
        for _ in range(2):
            started.add_node(num_cpus=1)
    connected(started.address)
    yield started
    ray.shutdown()
    started.shutdown()


def written(logbook):
    """The page without its times, and the losses beside it, byte by byte."""
    [page] = logbook.glob("small/*.json")
    return STAMPS.sub("", page.read_text()), page.with_suffix(".npz").read_bytes()


EPOCHS, RATES = 100_000, [0.1, 0.2, 0.3, 0.4, 0.5]  # some seconds of work, on two seeds


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A sweep of ten blocks of one run each: its file, and the logbook that threads wrote."""
    folder = tmp_path_factory.mktemp("plain")
    axes = {"optimizer.learning_rate": RATES}
    path = changed(folder / "small.json", epochs=EPOCHS, sweep={"axes": axes})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(groups, "TOGETHER", 1)
        sweep.sweep(path, logbook=folder / "logbook")
    return path, folder / "logbook"


@pytest.fixture
def in_pieces(monkeypatch):
    """Runs are trained one a block."""
    monkeypatch.setattr(groups, "TOGETHER", 1)


def test_a_node_that_is_killed_changes_nothing(
    cluster, plain, logbook, in_pieces, monkeypatch, capsys
):
    tell, ray = on_ray.RayPool.tell, connected(True)[0]
    ours = ray.get_runtime_context().get_node_id()
    [other, *_] = [node for node in cluster.worker_nodes if node.node_id != ours]

    def told(pool, number, epochs, ended=False):
        tell(pool, number, epochs, ended)
        if epochs == 0 or ended or number not in pool.running:
            return
        trains = ray.get(pool.tally.places.remote())[number] == other.node_id
        if trains and other in cluster.worker_nodes:
            cluster.remove_node(other, allow_graceful=False)

    monkeypatch.setattr(on_ray.RayPool, "tell", told)
    heard = []

    class Hearing(SweepListener):
        def hears(self, epochs):
            heard.append(epochs)

    swept = sweep.sweep(plain[0], logbook=logbook, listener=Hearing(), ray=True)
    assert other not in cluster.worker_nodes
    assert swept.repeated == 1
    assert sum(heard) == 10 * EPOCHS, "what was done again counts once"
    assert capsys.readouterr().out == "", "Ray says nothing of its own"
    assert written(logbook) == written(plain[1])


class Impatient(SweepListener):
    """Presses Ctrl-C when some epochs are done."""

    def __init__(self):
        self.epochs, self.begun = 0, None

    def begins(self, epochs, done):
        self.begun = done

    def hears(self, epochs):
        before, self.epochs = self.epochs, self.epochs + epochs
        if before < EPOCHS <= self.epochs:
            os.kill(os.getpid(), signal.SIGINT)


def test_threads_go_on_where_ray_was_interrupted_and_the_other_way_round(
    cluster, plain, logbook, in_pieces
):
    on_nodes, in_threads = Impatient(), Impatient()
    for listener, ray in ((on_nodes, True), (in_threads, False)):
        with pytest.raises(KeyboardInterrupt):
            sweep.sweep(plain[0], logbook=logbook, listener=listener, ray=ray)
    assert in_threads.begun == on_nodes.epochs
    swept = sweep.sweep(plain[0], logbook=logbook, ray=True)
    assert swept.page.read_text().count("// continued: ") == 2
    assert written(logbook) == written(plain[1])


HALVED = {
    "axes": {"optimizer.learning_rate": [1e30, 1e-3, 0.01, 0.1]},
    "halving": {"rungs": [1, 4]},
}


def test_nodes_need_neither_the_data_nor_the_files_of_the_user(cluster, file, tmp_path):
    (tmp_path / "beside.py").write_text("WIDTH = 3\n")
    (tmp_path / "mine.py").write_text(NET)
    rows = [f"{number / 81},{number % 9},{number * 7 % 5 + 0.5}" for number in range(81)]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,y", *rows]))
    data = {"name": "file", "path": str(tmp_path / "table.csv"), "target": "y"}
    changed(file, data=data, model="mine.py:Net", batch_size=64, epochs=8, sweep=HALVED)
    plan = plan_sweep(file)
    plain = sweep.sweep(plan, logbook=None)
    (tmp_path / "table.csv").unlink()
    (tmp_path / "mine.py").unlink()
    swept = sweep.sweep(plan, logbook=None, ray=True)
    same_records(swept.records, plain.records)
    assert "dropped after epoch 2" in swept.of(1)[0].ending


def test_other_versions_are_refused(cluster, file, monkeypatch, capsys):
    here = on_node.versions()
    monkeypatch.setattr(on_node, "versions", lambda: here | {"jax": "0.9.9", "device": "tpu"})
    assert cli.main(["sweep", str(file), "--no-logbook", "--ray"]) == 2
    said = capsys.readouterr().err
    assert re.search(r"nnref: ray: node \S+ has jax [\d.]+, not 0.9.9, device cpu, not tpu", said)
    assert "install there" in said


def test_a_dry_run_shows_the_nodes(cluster, file, capsys):
    assert cli.main(["sweep", str(file), "--dry-run", "--json", "--ray"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["blocks"] == 2
    assert {(node["blocks"], node["unit"]) for node in plan["nodes"]} == {(1, "core")}


def test_an_ablation_is_the_one_of_threads(cluster, tmp_path):
    path = changed(tmp_path / "small.json", **ABLATION)
    ours, theirs = (ablate(path, logbook=None, ray=ray) for ray in (True, False))
    same_records(ours.tuning.records, theirs.tuning.records)
    same_records(ours.final.records, theirs.final.records)
    assert [each.name for each in ours.alternatives] == [each.name for each in theirs.alternatives]


def test_claims_are_judged_on_the_nodes(cluster, tmp_path, capsys):
    claim = {"metric": "train_loss", "at_most": 5.0, "in": 1, "of": 1}
    for name, bound in (("right", 5.0), ("wrong", 0.0)):
        changed(tmp_path / f"{name}.json", sweep=None, seeds=[0], claim=claim | {"at_most": bound})
    files = [str(tmp_path / f"{name}.json") for name in ("right", "wrong")]
    assert cli.main(["claims", *files, "--ray"]) == 1
    rows = capsys.readouterr().out.splitlines()
    assert sorted(row.split()[:2] for row in rows[:2]) == [["right", "held"], ["wrong", "NOT"]]
    assert rows[2:] == ["1 of 2 claims did not hold"]


def test_a_file_that_no_node_has_is_told(cluster, tmp_path):
    with pytest.raises(UserError, match="lost.json"):
        list(reproduce([tmp_path / "lost.json"], ray=True))


def test_without_an_address_a_cluster_is_started_and_stopped(file, logbook, tmp_path):
    pytest.importorskip("ray")
    words = ["sweep", str(file), "--logbook", str(logbook), "--json", "--ray"]
    command = [sys.executable, "-m", "nnref", *words]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["repeated"] == 0
    assert "warning" not in said.stderr
    sweep.sweep(file, logbook=tmp_path / "plain")
    assert written(logbook) == written(tmp_path / "plain")
