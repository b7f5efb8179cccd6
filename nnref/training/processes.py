"""Processes: one run in several of them, on one machine or on many, each with devices of its own.

Process 0 listens at the address of the coordinator, and every other one stays connected to it for
as long as the run takes. By these lines they find each other, compare their versions, agree on what
a clock, a signal or a file of one of them decides, and hear at once when one has ended: then each
says why, and ends as well. Arrays do not pass here: JAX has its own ways for them.

A line carries JSON objects, one after another: hello, go, value, beat, failed and ended.
"""

import json
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

from nnref.errors import UserError, printable

PATIENCE = 60.0  # seconds that processes wait for each other at the beginning
SILENCE = 30.0  # seconds without a word, after which another process counts as dead
BEAT = 5.0  # seconds between two signs of life
LEAVING = 5.0  # seconds that process 0 waits for the others to end
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")  # whose versions may decide a loss
ADDRESS = 'allowed is host:port, like 10.0.0.1:1234, or "auto" on Slurm, Open MPI or Kubernetes'
AGAIN = "the same command goes on at the last checkpoint, also on fewer devices"


class Line:
    """A connection to another process; objects are sent whole, from whatever thread."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        self.reader = connection.makefile("r", encoding="utf-8")
        self.values: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.lock, self.closed = threading.Lock(), threading.Event()

    def send(self, **content: Any) -> None:
        """Send an object; that nobody hears it any more is noticed by who listens."""
        with suppress(OSError), self.lock:
            self.connection.sendall(json.dumps(content).encode() + b"\n")

    def receive(self, seconds: float) -> dict[str, Any]:
        """The next object; an empty one where the other has ended, or is silent for so long."""
        self.connection.settimeout(seconds)
        try:
            content = json.loads(self.reader.readline() or "{}")
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def close(self) -> None:
        """Hang up."""
        self.reader.close()
        self.connection.close()


class Processes:
    """All processes of a run, as one of them sees them."""

    def __init__(self, index: int, count: int, lines: dict[int, Line]):
        self.index, self.count, self.lines = index, count, lines
        self.code = 0  # of this process at its end
        self.leaving, self.failing = threading.Event(), threading.Lock()
        for other in lines:
            threading.Thread(target=self.listen, args=(other,), daemon=True).start()
        threading.Thread(target=self.beat, daemon=True).start()

    def beat(self) -> None:
        """Give signs of life."""
        while True:
            for line in self.lines.values():
                line.send(beat=True)
            time.sleep(BEAT)

    def listen(self, other: int) -> None:
        """Hear what another process says, and end with it."""
        line = self.lines[other]
        while content := line.receive(SILENCE):
            if "value" in content:
                line.values.put(content["value"])
            elif "failed" in content:
                line.closed.set()
                self.fail(content["failed"])
            elif "ended" in content and other == 0:  # the pages are written; nothing is left to do
                leave(self.code)
        line.closed.set()
        if self.index or not self.leaving.is_set():
            self.fail(f"process {other} of this run has died, or cannot be reached; {AGAIN}")

    def gathered(self, value: Any) -> list[Any]:
        """What every process has given, in their order: what JSON can carry."""
        if self.index:
            self.lines[0].send(value=value)
            return self.lines[0].values.get()
        others = [self.lines[other].values.get() for other in range(1, self.count)]
        values = json.loads(json.dumps([value, *others]))
        for line in self.lines.values():
            line.send(value=values)
        return values

    def fail(self, why: str, code: int = 2) -> NoReturn:
        """Say why the run ends, here and to all others, and end."""
        self.failing.acquire()  # never given back: one reason is enough
        self.leaving.set()
        for line in self.lines.values():
            line.send(failed=why)
        sys.stderr.write(f"nnref: {printable(why)}\n")
        self.wait()
        leave(code)

    def end(self, code: int) -> NoReturn:
        """End as it should be, process 0 last: without its coordinator JAX would abort the rest."""
        self.code = code
        if self.index:
            self.lines[0].closed.wait()  # `listen` ends this process
        self.leaving.set()
        for line in self.lines.values():
            line.send(ended=True)
        self.wait()
        leave(code)

    def interrupted(self, code: int) -> NoReturn:
        """End after Ctrl-C: at the end of process 0, if that has heard of it."""
        self.code = code
        if self.index == 0:
            self.end(code)
        self.lines[0].closed.wait(LEAVING)
        self.fail(f"process {self.index} was interrupted; {AGAIN}", code)

    def wait(self) -> None:
        """Wait a while, in process 0, until the others have ended."""
        until = time.monotonic() + LEAVING
        for line in self.lines.values() if self.index == 0 else ():
            line.closed.wait(max(0.0, until - time.monotonic()))


def leave(code: int) -> NoReturn:
    """End the process here and now: JAX would wait minutes for those that have ended already."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# --- what a run asks, in one process or in several ------------------------------------------------


HERE: Processes | None = None


def leads() -> bool:
    """Whether this process writes, draws and prints: the only one, or the first."""
    return HERE is None or HERE.index == 0


def agreed(value: Any) -> Any:
    """What process 0 says, in every process; what JSON can carry."""
    return value if HERE is None else HERE.gathered(value)[0]


def anywhere(value: bool) -> bool:
    """Whether it is so in any of the processes."""
    return value if HERE is None else any(HERE.gathered(value))


def refuse_differences(**known: str) -> None:
    """Refuse to train what is not the same in all processes.

    Raises:
        UserError: with the name of what differs, and the process.
    """
    if HERE is None:
        return
    first, *others = HERE.gathered(known)
    for index, each in enumerate(others, 1):
        for name in known:
            if each[name] != first[name]:
                raise UserError(f"{name}: process {index} has another one than process 0")


def refuse(words: object) -> int:
    """Say what a user did wrong, in every process of the run; gives the exit code."""
    if HERE is not None:
        HERE.fail(f"process {HERE.index}: {words}")
    sys.stderr.write(f"nnref: {printable(words)}\n")
    return 2


def interrupted(code: int) -> int:
    """End a run after Ctrl-C, in every process of it; gives the exit code."""
    return code if HERE is None else HERE.interrupted(code)


def ended(work: Callable[[], int]) -> int:
    """The exit code of a command; where several processes share its run, they end together."""
    try:
        code = work()
    except Exception:
        if HERE is None:
            raise
        time.sleep(2)  # mostly another one has died: that is said meanwhile, and ends this one
        traceback.print_exc()
        return HERE.fail(f"process {HERE.index} has ended by an error in nnref itself", 3)
    return code if HERE is None else HERE.end(code)


# --- how processes find each other ----------------------------------------------------------------


class Address(NamedTuple):
    """Where process 0 listens."""

    host: str
    port: int
    family: socket.AddressFamily


def address_of(word: str) -> Address:
    """The address in a word `host:port`.

    Raises:
        UserError: for a word that is none, and a host that nobody knows.
    """
    host, _, port = word.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator {word}: {ADDRESS}")
    try:
        family = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise UserError(f"--coordinator {word}: {error.strerror or error}; {ADDRESS}") from None
    return Address(host.strip("[]"), int(port), family)


def join(word: str, count: int | None, index: int | None) -> None:
    """Become one of the processes of a run, before JAX has looked for devices.

    Args:
        word: the address of process 0, `host:port`; or `auto`, where JAX finds all three itself.
        count: of the processes.
        index: of this one, from 0.

    Raises:
        UserError: for an address, a number or a version that cannot be, for a port that is in use,
            and where another process does not come.
    """
    global HERE
    if word == "auto":
        HERE = detected()
        return
    if count is None or index is None:
        raise UserError(f"--coordinator {word}: give --processes and --process as well")
    if not 0 <= index < count:
        raise UserError(f"--process {index}: allowed is 0 to {count - 1}, of --processes {count}")
    address = address_of(word)
    lines = welcomed(listening(address), count) if index == 0 else arrived(address, count, index)
    HERE = Processes(index, count, lines)
    start_jax(coordinator_address=word, num_processes=count, process_id=index)


def start_jax(**known: Any) -> None:
    """Let JAX connect the devices of all processes; it looks for what is not known."""
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if known:
        known["cluster_detection_method"] = "deactivate"
    jax.distributed.initialize(
        **known,
        initialization_timeout=int(PATIENCE),
        heartbeat_timeout_seconds=int(2 * SILENCE),  # the lines notice first, and say it better
    )


def detected() -> Processes:
    """The processes of a job of Slurm, Open MPI or Kubernetes, as JAX finds them."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    try:
        start_jax()
    except (ValueError, RuntimeError, KeyError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"--coordinator auto: JAX finds no job of Slurm, Open MPI or Kubernetes ({first}); "
            "give host:port, --processes and --process"
        ) from None
    index, count = jax.process_index(), jax.process_count()
    listener = listening(Address("", 0, socket.AF_INET)) if index == 0 else None
    port = 0 if listener is None else listener.getsockname()[1]
    place = np.zeros(256, np.uint8)
    word = f"{socket.gethostname()}:{port}".encode()
    place[: len(word)] = np.frombuffer(word, np.uint8)
    address = bytes(np.asarray(multihost_utils.broadcast_one_to_all(place), np.uint8)).rstrip(b"\0")
    if listener is not None:
        return Processes(index, count, welcomed(listener, count))
    return Processes(index, count, arrived(address_of(address.decode()), count, index))


def listening(address: Address) -> socket.socket:
    """A socket of process 0 that the others can reach, whatever the name of its machine."""
    try:
        return socket.create_server(("", address.port), family=address.family)
    except OSError as error:
        raise UserError(
            f"--coordinator {address.host}:{address.port}: {os.strerror(error.errno or 0).lower()}"
            "; choose another port, the same for all processes"
        ) from None


def hello(count: int, index: int) -> dict[str, Any]:
    """What a process says of itself when it comes."""
    from importlib.metadata import version  # of several processes alone: not at every start

    versions = {name: version(name) for name in ("nnref", *LIBRARIES)}
    return {"index": index, "count": count, "versions": versions}


def welcomed(listener: socket.socket, count: int) -> dict[int, Line]:
    """The lines of process 0 to all others, once each of them has come.

    Raises:
        UserError: where one does not come in time, or is not as process 0 is.
    """
    lines: dict[int, Line] = {}
    come: list[Line] = []
    until, own, wrong = time.monotonic() + PATIENCE, hello(count, 0), ""
    with listener:
        while len(lines) < count - 1 and not wrong:
            listener.settimeout(max(0.01, until - time.monotonic()))
            try:
                line = Line(listener.accept()[0])
            except TimeoutError:
                missing = ", ".join(str(i) for i in range(1, count) if i not in lines)
                wrong = f"process {missing} of {count} did not come within {PATIENCE:.0f} s"
                break
            theirs = line.receive(LEAVING).get("hello")
            if theirs is None:  # whoever it was, it is none of ours
                line.close()
                continue
            wrong = refusal(own, theirs, lines)
            lines[theirs["index"]] = line
            come.append(line)
    for line in come:
        line.send(**({"failed": wrong} if wrong else {"go": True}))
    if wrong:
        for line in come:
            line.close()
        raise UserError(wrong)
    return lines


def refusal(own: dict[str, Any], theirs: dict[str, Any], lines: dict[int, Line]) -> str:
    """Why a process cannot take part in the run of process 0; nothing where it can."""
    index = theirs["index"]
    if theirs["count"] != own["count"]:
        return f"process {index} has --processes {theirs['count']}, process 0 has {own['count']}"
    if index in lines:
        return f"two processes have come as --process {index}; each has a number of its own"
    for name, ours in own["versions"].items():
        version = theirs["versions"].get(name)
        if version != ours:
            return f"process {index} has {name} {version}, process 0 has {ours}; install the same"
    return ""


def arrived(address: Address, count: int, index: int) -> dict[int, Line]:
    """The line to process 0, once all others have come as well.

    Raises:
        UserError: where nobody answers, or process 0 refuses.
    """
    where, until = f"{address.host}:{address.port}", time.monotonic() + PATIENCE
    while True:
        try:
            line = Line(socket.create_connection((address.host, address.port), timeout=5))
            break
        except OSError:
            if time.monotonic() > until:
                raise UserError(
                    f"--coordinator {where}: nobody answered for {PATIENCE:.0f} s; start process 0 "
                    "there, and see that this machine reaches it"
                ) from None
            time.sleep(0.2)
    line.send(hello=hello(count, index))
    answer = line.receive(PATIENCE + LEAVING)
    if "go" not in answer:
        line.close()
        raise UserError(
            answer.get("failed", f"--coordinator {where}: what answers is no process 0")
        )
    return {0: line}
