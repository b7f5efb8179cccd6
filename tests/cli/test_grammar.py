"""The grammar of the command line."""

from commands import call


def test_version_names_libraries_and_device(capsys):
    code, out, _ = call(capsys, "--version")
    assert code == 0
    assert all(word in out for word in ("nnref ", "jax ", "flax ", "optax ", "cpu"))
