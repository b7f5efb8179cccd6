"""Blocks of a sweep, and whole experiments, as tasks of a Ray cluster.

`RayPool` is an executor as threads are one: the loop of a sweep submits its blocks to either. Where
a block is trained, who trains it again after a node has died, and how arrays get there, is Ray's.
Of the logbook the nodes know nothing: what they have trained goes back to the process that asked.
"""

import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from itertools import count
from typing import Any

import jax

from nnref.errors import UserError
from nnref.studies import on_node
from nnref.studies.cluster import (
    RESOURCES,
    connected,
    connection,
    environment,
    installed,
    nodes_of,
)
from nnref.studies.groups import Group

LOOKS = 0.25  # seconds between two looks at what the blocks have come to
TRIES = 3  # times that a block is trained again, whose worker or node has died


class RayPool(Executor):
    """Trains blocks on a Ray cluster, one a core or one a GPU."""

    def __init__(self, address: bool | str):
        """Connect to the cluster at an address; True for one that is started here.

        Raises:
            UserError: where there is none, or it has nothing to compute with.
        """
        self.ray, self.started = connected(address)
        try:
            nodes_of(self.ray)
            self.tally = on_node.tally_beside(self.ray)
        except BaseException:
            self.shutdown()
            raise
        self.remote, self.versions = task_of(self.ray, on_node.train), on_node.versions()
        self.numbers, self.lock, self.closed = count(), threading.Lock(), threading.Event()
        self.running: dict[int, tuple[Any, int]] = {}  # a block's reference, and epochs it told
        self.sent: dict[Group, Any] = {}
        self.data: dict[str, Any] = {}
        self.hears: Callable[[int], bool] = bool
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        """Call `fn(group, ..., hears)` on a node, and `hears` here.

        `hears` is told how many more epochs are done, and says whether to halt.
        """
        group, *between, self.hears = args
        future, number = Future(), next(self.numbers)
        with self.lock:
            sent, data = self.references(group)
            given = number, sent.hex(), sent, data, self.tally, self.versions, fn, *between
            block = self.remote.remote(*given)
            self.running[number] = block, 0
        block.future().add_done_callback(partial(self.ends, number, future))
        return future

    def references(self, group: Group) -> tuple[Any, Any]:
        """Ray's references to a group and its data, which are sent once."""
        data = group.dataset.fingerprint
        if data not in self.data:
            self.data[data] = self.ray.put(group.dataset)
        if group not in self.sent:
            self.sent[group] = self.ray.put(on_node.packed(group))
        return self.sent[group], self.data[data]

    def tell(self, number: int, epochs: int, ended: bool = False) -> None:
        """Hand on how many epochs a block has done, fewer where it was begun again."""
        with self.lock:
            if number not in self.running:
                return
            block, before = self.running.pop(number)
            if not ended:
                self.running[number] = block, epochs
        self.hears(epochs - before)

    def ends(self, number: int, future: Future[Any], done: Future[Any]) -> None:
        """Hand on what a block has come to."""
        try:
            epochs, trained = pickle.loads(done.result())
            self.tell(number, epochs, ended=True)
            future.set_result(trained)
        except self.ray.exceptions.TaskCancelledError:  # halted before it began
            future.set_result({})
        except BaseException as error:
            future.set_exception(in_words(error, self.ray))
        finally:
            self.running.pop(number, None)

    def watch(self) -> None:
        """Tell what the blocks have come to while they train, and halt them where that is asked."""
        halted = False
        while not self.closed.wait(LOOKS):
            if not self.running:
                continue
            try:
                for number, epochs in self.ray.get(self.tally.news.remote(halted)).items():
                    self.tell(number, epochs)
                halted = halted or self.hears(0)
                if halted:
                    self.cancel_waiting()
            except self.ray.exceptions.RayError:
                return  # the blocks end with an error, too

    def cancel_waiting(self) -> None:
        """Cancel the blocks that no node trains: not begun yet, or on a node that has died."""
        places = self.ray.get(self.tally.places.remote())
        alive = {node["NodeID"] for node in self.ray.nodes() if node["Alive"]}
        with self.lock:
            blocks = [b for n, (b, _) in self.running.items() if places.get(n) not in alive]
        for block in blocks:
            self.ray.cancel(block)

    def repeated(self) -> int:
        """How many times a block was begun again, as its worker or its node had died."""
        return self.ray.get(self.tally.repeated.remote())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; one that was started here is stopped."""
        if hasattr(self, "watcher"):
            self.closed.set()
            self.watcher.join()
        if self.started:
            self.ray.shutdown()


def task_of(ray: Any, function: Callable[..., Any]) -> Any:
    """A function as Ray's, each call of which takes one core, or one GPU where one is here."""
    resource, _ = RESOURCES[jax.default_backend()]
    taken = {"num_cpus": 1} if resource == "CPU" else {"num_cpus": 0, "num_gpus": 1}
    set_as_here = {"env_vars": environment()}
    return ray.remote(max_retries=TRIES, runtime_env=set_as_here, **taken)(function)


def on_nodes(
    function: Callable[[Any], Any], given: Iterable[Any], address: bool | str
) -> Iterator[Any]:
    """Call a function with one argument after another on the nodes of a cluster.

    Args:
        function: of a module, with one argument.
        given: what it is called with.
        address: of the cluster; True for one that is started here.

    Yields:
        What the calls give, in the order in which they end.

    Raises:
        UserError: for a cluster that cannot be used, and what a call raises.
    """
    with connection(address):
        ray = installed()
        nodes_of(ray)
        call, versions = task_of(ray, on_node.call), on_node.versions()
        waiting = [call.remote(versions, function, each) for each in given]
        while waiting:
            (first, *_), waiting = ray.wait(waiting)
            try:
                yield ray.get(first)
            except (ray.exceptions.RayTaskError, ray.exceptions.RayError) as error:
                raise in_words(error, ray) from None


def in_words(error: BaseException, ray: Any) -> BaseException:
    """The error of a block as the loop of a sweep knows it."""
    if isinstance(error, ray.exceptions.RayTaskError):
        cause: BaseException = vars(error)["cause"]
        if isinstance(cause, UserError):
            return UserError(str(cause))
        if "failed to import on the worker" in str(cause):  # the last line says what is missing
            last = str(cause).strip().rpartition("\n")[2]
            return UserError(f"ray: a node cannot import nnref ({last}); pip install nnref there")
        return cause
    if isinstance(error, ray.exceptions.RayError):
        first = str(error).strip().partition("\n")[0]
        return UserError(
            f"ray: a block could not be trained ({first}), after {TRIES} further tries where its "
            "worker had died, most often for lack of memory; what is done is kept: the same "
            "command goes on where it was"
        )
    return error
