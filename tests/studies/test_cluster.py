"""A Ray cluster: what is told where it cannot be used."""

import os
import socket
import sys
import threading

import pytest
from small import XOR_SWEEP

from nnref import cli
from nnref.errors import UserError
from nnref.studies import cluster

CONTENT = XOR_SWEEP  # of `file`


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:1", "no cluster answers at 127.0.0.1:1 (connection refused); give HOST:PORT"),
        ("nonsense", "nonsense is no address of a cluster; give HOST:PORT of its head"),
        ("ray://head:10001", "Ray's client is not used: call nnref on a node of the cluster"),
    ],
)
def test_a_bad_address_is_told_in_a_sentence(file, capsys, monkeypatch, address, told):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    assert cli.main(["sweep", str(file), "--no-logbook", "--ray", address]) == 2
    assert told in capsys.readouterr().err


def test_who_answers_and_is_no_cluster_is_told(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def other():
        with server.accept()[0] as line:
            line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=other, daemon=True).start()
        with pytest.raises(UserError, match="what answers there is no head of a cluster"):
            cluster.connected(f"127.0.0.1:{server.getsockname()[1]}")


def test_without_ray_the_extra_is_named(file, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(["sweep", str(file), "--no-logbook", "--ray"]) == 2
    assert 'pip install "nnref[ray]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("token", "given", "then"),
    [(True, None, "token"), (True, "disabled", "disabled"), (False, None, None)],
)
def test_a_token_that_a_cluster_of_ones_own_has_left_is_shown(
    tmp_path, monkeypatch, token, given, then
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", given or "")  # put back behind this test
    if given is None:
        monkeypatch.delenv("RAY_AUTH_MODE")
    if token:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("made up")
    cluster.bring_the_token()
    assert os.environ.get("RAY_AUTH_MODE") == then


def test_blocks_are_placed_on_what_jax_computes_with(monkeypatch):
    monkeypatch.setattr("jax.default_backend", lambda: "tpu")
    with pytest.raises(UserError, match="computes on tpu, and a block takes a core or a GPU"):
        cluster.connected(True)
