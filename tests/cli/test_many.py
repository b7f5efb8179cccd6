"""Commands about many networks."""

import json

from commands import call, write


def test_claims_prints_a_row_each_and_fails_with_one_of_them(folder, capsys):
    claim = {"metric": "train_loss", "at_most": 5.0, "in": 2, "of": 2}
    write(folder, "right", claim=claim)
    code, out, _ = call(capsys, "claims")
    assert code == 0
    assert out.splitlines()[0].startswith("right  held ")
    assert "small" not in out
    write(folder, "wrong", claim=claim | {"at_most": 0.0})
    code, out, _ = call(capsys, "claims")
    assert code == 1
    assert "wrong  NOT HELD" in out
    assert "1 of 2 claims did not hold" in out
    assert not (folder / "logbook").exists()


def test_regularize_draws_the_pieces_and_says_which_pay(folder, capsys):
    record = {"regularization": {"l2": 1e-4}, "epochs": 20}
    write(folder, "small", **record)
    files = ["-o", "pieces.png", "--html", "pieces.html"]
    code, out, _ = call(capsys, "regularize", "small", "--seeds", "6", "--no-logbook", *files)
    assert code in (0, 1)
    assert "everything off" in out
    assert "l2 0.0001" in out
    assert (folder / "pieces.png").read_bytes().startswith(b"\x89PNG")
    assert "piece by piece" in (folder / "pieces.html").read_text()


MINE = """
import jax, jax.numpy as jnp, numpy as np, optax, nnref

def make_task():
    x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    task = nnref.Task(
        init=lambda key: jnp.zeros((2, 1)),
        apply=lambda params, x: x @ params,
        loss=lambda outputs, y: jnp.mean((outputs - y) ** 2),
        train=(x, x[:, :1]),
    )
    return task, {"optimizer": optax.adamw(0.05, weight_decay=0.1), "epochs": 5, "kind": None}
"""


def test_regularize_takes_a_task_of_ones_own(folder, capsys):
    (folder / "mine.py").write_text(MINE)
    code, out, _ = call(capsys, "regularize", "mine.py:make_task", "--seeds", "6", "--json")
    done = json.loads(out)
    assert code == 0
    assert [piece["piece"] for piece in done["pieces"]] == ["weight decay"]
    assert (done["name"], done["metric"], len(done["seeds"])) == ("mine", "train_loss", 6)
    assert done["picture"] == "mine-regularize.png"
    assert (folder / "mine-regularize.png").exists()
    assert not (folder / "logbook").exists()
