"""What a node of a cluster does: train a block of a group that was sent, or run an experiment."""

import pickle
import platform
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax

import nnref
from nnref.data import Dataset
from nnref.errors import UserError
from nnref.experiment.experiment import parse
from nnref.experiment.schema import references_in
from nnref.experiment.sources import SOURCES, copy_of, looking_in
from nnref.studies.groups import Group, Job
from nnref.training.compilation import drop_programs, use_cache, usual_settings
from nnref.training.processes import LIBRARIES


class Sent(NamedTuple):
    """A group as it travels: text and numbers."""

    experiment: str
    files: list[tuple[str, str, str, str]]  # of a user: name, digest, text, folder
    hyperparameters: Mapping[int, Mapping[str, float]]
    jobs: list[Job]
    together: int


def packed(group: Group) -> Sent:
    """A group as it travels, without its data, as groups may share them."""
    files = [
        (each.name, each.digest, SOURCES[each.digest].text, str(folder_of(each.digest)))
        for each in references_in(group.experiment)
        if each.digest
    ]
    text, numbers = group.experiment.to_json(), group.of_variants
    return Sent(text, files, numbers, group.jobs, group.together)


def folder_of(digest: str) -> Path:
    """The folder of a user's file, where what it imports may lie beside it."""
    return SOURCES[digest].path.parent.resolve()


def unpacked(sent: Sent, dataset: Dataset) -> Group:
    """The group that was sent; a user's files are imported from copies of them.

    Raises:
        UserError: where such a file imports what is not here.
    """
    with TemporaryDirectory() as folder, looking_in(Path(folder)):
        for name, digest, text, beside in sent.files:
            path = copy_of(name, digest, Path(folder))
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            sys.path.append(beside)
        group = Group(parse(sent.experiment), sent.hyperparameters, sent.jobs, dataset)
    group.together = sent.together  # of the machine that asked: another number is another program
    return group


GROUPS: dict[str, Group] = {}  # what this process has made of what was sent


def train(
    number: int,
    key: str,
    sent: Sent,
    dataset: Dataset,
    tally: Any,
    expected: Mapping[str, str],
    function: Callable[..., Any],
    *given: Any,
) -> bytes:
    """Call `function(group, *given, hears)`.

    Nothing here waits for Ray: it would lend the core of who waits to another block.

    Args:
        number: of the block.
        key: names the group.
        sent: the group.
        dataset: its data.
        tally: the actor that is told how far the block has come.
        expected: versions that must be the same here.
        function: trains the block.
        given: its arguments between the group and `hears`.

    Returns:
        How many epochs were trained and what the function gave, pickled: as arrays they would stay
        in Ray's memory as long as they are used.

    Raises:
        UserError: for other versions than expected, and files that cannot be imported.
    """
    import ray  # pyright: ignore[reportMissingImports]

    refuse_others(expected)
    use_cache()
    tally.begins.remote(number, ray.get_runtime_context().get_node_id())
    done, halted = 0, threading.Event()

    def hears(epochs: int) -> bool:
        nonlocal done
        done += epochs
        tally.hears.remote(number, done).future().add_done_callback(answered)
        return halted.is_set()

    def answered(answer: Future[bool]) -> None:
        if not answer.exception() and answer.result():
            halted.set()

    with usual_settings():
        if key not in GROUPS:
            GROUPS[key] = unpacked(sent, dataset)
        trained = function(GROUPS[key], *given, hears)
    drop_programs()
    return pickle.dumps((done, trained))


def call(expected: Mapping[str, str], function: Callable[[Any], Any], given: Any) -> Any:
    """Call a function with its one argument, where the versions are those of who asks.

    Raises:
        UserError: for other versions than expected.
    """
    refuse_others(expected)
    use_cache()
    return function(given)


def versions() -> dict[str, str]:
    """What must be the same on all nodes, as it may decide a loss."""
    python = {"nnref": nnref.__version__, "Python": platform.python_version()}
    libraries = {name: version(name) for name in LIBRARIES}
    return python | libraries | {"device": jax.devices()[0].device_kind}


def refuse_others(expected: Mapping[str, str]) -> None:
    """Refuse to compute with other versions, or on another device, than the one who asks.

    Raises:
        UserError: with what is here, and what is there.
    """
    here = versions()
    differ = [name for name in expected if here[name] != expected[name]]
    others = [f"{name} {here[name]}, not {expected[name]}" for name in differ]
    if others:
        raise UserError(
            f"ray: node {platform.node()} has {', '.join(others)}, and all nodes of a sweep must "
            "compute alike; install there what this process has, or leave the node out"
        )


def tally_beside(ray: Any) -> Any:
    """An actor on this node that keeps how far the blocks have come, and whether they halt."""

    class Tally:
        """Defined in here it is sent as it is: its process needs neither nnref nor JAX."""

        def __init__(self) -> None:
            self.nodes: dict[int, str] = {}  # on which each block was begun last
            self.epochs: dict[int, int] = {}  # of blocks that have come further since the last news
            self.again, self.halted = 0, False

        def begins(self, number: int, node: str) -> None:
            self.again += number in self.nodes
            self.nodes[number], self.epochs[number] = node, 0

        def hears(self, number: int, epochs: int) -> bool:
            self.epochs[number] = epochs
            return self.halted

        def news(self, halt: bool) -> dict[int, int]:
            self.halted = self.halted or halt
            epochs, self.epochs = self.epochs, {}
            return epochs

        def places(self) -> dict[int, str]:
            return self.nodes

        def repeated(self) -> int:
            return self.again

    here = ray.get_runtime_context().get_node_id()
    beside = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=beside)(Tally).remote()
