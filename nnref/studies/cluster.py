"""A Ray cluster: which one is meant, what it has, and what its nodes are given.

Nothing of Ray is imported before it is asked for.
"""

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax

import nnref
from nnref.errors import UserError
from nnref.studies.groups import workers

LOCAL = "local"  # the address of a cluster that is started here, and stopped in the end
ADDRESSES = 'HOST:PORT of its head (6379 by default), "auto", or none for the cores of this machine'
# How gRPC begins, in which Ray's head speaks: HTTP/2's preface, and a frame of settings, of kind 4.
# A head answers with its own.
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
RESOURCES = {"cpu": ("CPU", "core"), "gpu": ("GPU", "GPU")}  # of a block, by JAX's backend


class Node(NamedTuple):
    """A machine of a cluster, and how many blocks it trains at once."""

    name: str
    blocks: int
    unit: str  # that a block takes: core, or GPU

    def __str__(self) -> str:
        return f"{self.name} ({self.blocks} {self.unit}{'s' if self.blocks > 1 else ''})"


def installed() -> Any:
    """Ray, where it is installed and blocks can be placed.

    Raises:
        UserError: where not.
    """
    if jax.default_backend() not in RESOURCES:
        raise UserError(
            f"ray: this machine computes on {jax.default_backend()}, and a block takes a core or a "
            "GPU; set JAX_PLATFORMS=cpu, or leave ray out"
        )
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            'a cluster needs Ray, which is not installed; pip install "nnref[ray]"'
        ) from None
    return ray


def bring_the_token() -> None:
    """Have Ray show the token that the first cluster of one's own has left, if there is one.

    Clusters of Ray 2.60 ask for it from then on. Who is given HOST:PORT does not show it, unless
    this is set before Ray is imported, and one without a token lets it pass.
    """
    if (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def meant(ray: Any, address: bool | str) -> str:
    """The address that is meant; "" for the cluster to which this process is connected already."""
    if address is True:
        return "" if ray.is_initialized() else os.environ.get("RAY_ADDRESS", LOCAL)
    if ray.is_initialized():
        raise UserError(
            f"ray: {address} given, and this process is connected to a cluster already; call "
            "ray.shutdown() first, or give True for that one"
        )
    return str(address)


def connected(address: bool | str) -> tuple[Any, bool]:
    """Ray, connected to a cluster, and whether that was done here.

    Raises:
        UserError: where Ray is not installed, or there is no such cluster.
    """
    bring_the_token()
    ray = installed()
    place = meant(ray, address)
    if not place:
        return ray, False
    refuse_no_cluster(place)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anyone
    # Ray would write what befalls its nodes into stdout, and has no option to leave it out.
    ray._private.worker._worker_logs_enabled = False
    # Nodes without nnref get it, and all compute with this one.
    code = {"py_modules": [str(Path(nnref.__file__).parent)]}
    here = {"num_cpus": workers(), "include_dashboard": False} if place == LOCAL else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX, of forks: Ray's are followed by another program
            ray.init(place, runtime_env=code, log_to_driver=False, logging_level="ERROR", **here)
    except (ConnectionError, RuntimeError, ValueError) as error:
        ray.shutdown()
        why = str(error).strip().partition("\n")[0]
        if place == "auto" and isinstance(error, ConnectionError):
            why = "no cluster runs on this machine"
        raise UserError(f"ray: {place} given, and {why}; give {ADDRESSES}") from None
    return ray, True


def refuse_no_cluster(address: str) -> None:
    """Refuse an address at which nobody answers, for which Ray itself would wait a minute."""
    if address in (LOCAL, "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        client = "; Ray's client is not used: call nnref on a node of the cluster"
        raise UserError(
            f"ray: {address} is no address of a cluster; give {ADDRESSES}"
            f"{client if address.startswith('ray://') else ''}"
        )
    try:
        with socket.create_connection((host, int(port)), timeout=10) as line:
            line.sendall(GREETING)
            if line.recv(4)[3:] != b"\4" and os.environ.get("RAY_USE_TLS") != "1":
                raise OSError(None, "what answers there is no head of a cluster")
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"ray: no cluster answers at {address} ({reason.lower()}); give {ADDRESSES}. "
            "ray start --head starts a cluster, and prints its address"
        ) from None


def nodes_of(ray: Any) -> list[Node]:
    """The nodes of a cluster that can train blocks.

    Raises:
        UserError: where there is none.
    """
    resource, unit = RESOURCES[jax.default_backend()]
    alive = [node for node in ray.nodes() if node["Alive"]]
    able = [(node, int(node["Resources"].get(resource, 0))) for node in alive]
    nodes = [Node(node["NodeManagerHostname"], units, unit) for node, units in able if units]
    if not nodes:
        raise UserError(
            f"ray: none of the {len(alive)} nodes has a {unit}, and a block takes one, as this "
            f"machine computes on {jax.default_backend()}; ray start --address=HOST:PORT on a "
            "machine that has one joins it to the cluster"
        )
    return nodes


def cluster_nodes(address: bool | str) -> list[Node]:
    """The nodes of the cluster at an address, as `nodes_of` gives them; nothing is started."""
    if meant(installed(), address) == LOCAL:
        return [Node("a cluster that is started here", workers(), RESOURCES["cpu"][1])]
    with connection(address):
        return nodes_of(installed())


@contextmanager
def connection(address: bool | str) -> Iterator[None]:
    """While this is open, the process is connected to the cluster at an address; False for none.

    Raises:
        UserError: where there is no such cluster.
    """
    if not address:
        yield
        return
    ray, started = connected(address)
    try:
        yield
    finally:
        if started:
            ray.shutdown()


def environment() -> dict[str, str]:
    """What sets JAX and XLA here, for the processes on the nodes."""
    names = [name for name in os.environ if name.startswith(("JAX_", "XLA_"))]
    here = {name: os.environ[name] for name in names}
    if jax.default_backend() == "cpu":
        here["JAX_PLATFORMS"] = "cpu"
    return here | {"JAX_ENABLE_X64": str(int(jax.config.values["jax_enable_x64"]))}
