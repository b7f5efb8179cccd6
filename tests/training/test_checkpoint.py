import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from nnref.errors import UserError
from nnref.experiment.experiment import read
from nnref.training import checkpoint
from nnref.training.loop import chunk_program, start_runs, train_chunk
from nnref.training.setup import from_experiment
from nnref.training.train import Plan


def runs(epoch):
    """A state of five runs that differs in every leaf from epoch to epoch."""
    keys = jax.random.split(jax.random.key(epoch), 5)
    return {
        # Large enough, and random enough, that Orbax writes it where nothing else guards it.
        "kernel": jax.vmap(lambda key: jax.random.normal(key, (30, 20)))(keys),
        "key": keys,
        "running": jnp.arange(5) != epoch,
        "opt_state": (optax.EmptyState(), jnp.full((5, 3), epoch, jnp.bfloat16)),
    }


def bits(tree):
    """Structure, and type, shape and bytes of every leaf."""
    leaves, structure = jax.tree.flatten(tree)
    raw = [np.asarray(jax.random.key_data(x) if is_key(x) else x) for x in leaves]
    return structure, [
        (str(x.dtype), x.shape, r.tobytes()) for x, r in zip(leaves, raw, strict=True)
    ]


def is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def two(folder):
    checkpoint.save(folder, 3, runs(3))
    checkpoint.save(folder, 6, runs(6))
    return folder / "epoch-0000000006"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


EVERY_DTYPE = {
    "bool": np.array([True, False]),
    "int8": np.array([-128, 127], np.int8),
    "int32": np.int32([[1, -2], [3, 2**31 - 1]]),
    "uint32": np.uint32([0, 2**32 - 1]),
    "float16": np.float16([1.5, -0.0]),
    "bfloat16": np.array([1.5, -0.0, 3e38], ml_dtypes.bfloat16),
    "float32": np.uint32([0x7FC01234, 0xFF800000, 0x80000000, 1]).view(np.float32),
    "complex64": np.complex64([1 + 2j]),
    "zeros": np.full(3, -0.0, np.float32),  # Orbax leaves out what equals its fill value
    "scalar": np.array(7, np.int32),
    "nothing": np.zeros((5, 0), np.float32),
}
WIDE = {"float64": np.float64([np.pi, 5e-324, np.nan]), "int64": np.int64([2**63 - 1])}


def test_numpy_arrays_come_back_bit_for_bit_and_as_numpy(tmp_path):
    state = EVERY_DTYPE | WIDE | {"strided": np.arange(12.0).reshape(3, 4).T}
    checkpoint.save(tmp_path, 1, state)
    epoch, restored = checkpoint.restore(tmp_path, state)
    assert epoch == 1
    assert bits(restored) == bits(state)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(restored))


@pytest.mark.parametrize("abstract", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_jax_arrays_come_back_bit_for_bit(tmp_path, wide, abstract):
    with jax.enable_x64(wide):
        state = jax.tree.map(jnp.array, EVERY_DTYPE | (WIDE if wide else {}))
        checkpoint.save(tmp_path, 1, state)
        like = jax.eval_shape(lambda: state) if abstract else state
        _, restored = checkpoint.restore(tmp_path, like)
        assert bits(restored) == bits(state)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("abstract", [False, True])
def test_keys_come_back_and_draw_the_same(tmp_path, impl, abstract):
    state = (jax.random.split(jax.random.key(3, impl=impl), 4), optax.EmptyState())
    checkpoint.save(tmp_path, 1, state)
    _, restored = checkpoint.restore(tmp_path, jax.eval_shape(lambda: state) if abstract else state)
    assert bits(restored) == bits(state)
    draw = jax.vmap(jax.random.normal)
    assert jnp.array_equal(draw(restored[0]), draw(state[0]))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, truncate, os.remove])
def test_damage_to_any_file_is_found_and_the_checkpoint_before_is_used(tmp_path, capfd, damage):
    newest = two(tmp_path)
    files = [path for path in newest.rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        good = path.read_bytes()
        damage(path)
        name = "digests" if path.name == "digests" else path.relative_to(newest).as_posix()
        with pytest.warns(
            UserWarning,
            match=rf"epoch-0000000006 \(.*{re.escape(name)}.*\); going on after epoch 3$",
        ):
            epoch, state = checkpoint.restore(tmp_path, runs(0))
        assert epoch == 3
        assert bits(state) == bits(runs(3))
        path.write_bytes(good)
    assert checkpoint.restore(tmp_path, runs(0))[0] == 6
    assert capfd.readouterr() == ("", "")  # Orbax has not seen the damaged files


def test_a_flipped_byte_anywhere_in_the_digests_counts(tmp_path):
    path = two(tmp_path) / "digests"
    good = path.read_bytes()
    for at in range(0, len(good), 41):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.warns(UserWarning, match="going on after epoch 3"):
            assert checkpoint.restore(tmp_path, runs(0))[0] == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda kernel: np.concatenate([kernel[:1] * (1 + 2.0**-23), kernel[1:]]),
        lambda kernel: kernel.view(np.int32),  # the same bytes
        lambda kernel: kernel.reshape(5, 20, 30),  # the same bytes
    ],
)
def test_an_array_that_orbax_reads_wrongly_is_found(tmp_path, monkeypatch, change):
    two(tmp_path)
    real, calls = checkpoint.with_orbax, []

    def wrong_at_first(act):
        calls.append(act)
        arrays = real(act)
        return arrays | {"['kernel']": change(arrays["['kernel']"])} if len(calls) == 1 else arrays

    monkeypatch.setattr(checkpoint, "with_orbax", wrong_at_first)
    with pytest.warns(UserWarning, match=r"\['kernel'\] is not what was saved\); going on after"):
        epoch, state = checkpoint.restore(tmp_path, runs(0))
    assert epoch == 3
    assert bits(state) == bits(runs(3))


def test_what_orbax_raises_over_good_files_is_not_taken_for_damage(tmp_path, monkeypatch):
    """An Orbax too old to read them, say: training anew would delete what is good."""
    two(tmp_path)

    def cannot_read(_):
        raise NotImplementedError("a format of the future")

    monkeypatch.setattr(checkpoint, "with_orbax", cannot_read)
    with pytest.raises(NotImplementedError, match="future"):
        checkpoint.restore(tmp_path, runs(0))


@pytest.mark.parametrize("following", [6, 9])
@pytest.mark.parametrize(
    ("owner", "step"),
    [(checkpoint, "with_orbax"), (checkpoint, "file_digests"), (Path, "rename")],
)
def test_a_crash_while_saving_leaves_the_one_before(tmp_path, monkeypatch, owner, step, following):
    checkpoint.save(tmp_path, 3, runs(3))

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, crash)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, 6, runs(6))
    assert len(names(tmp_path)) == 2  # what the crash left
    epoch, state = checkpoint.restore(tmp_path, runs(0))  # and no warning, since nothing is lost
    assert epoch == 3
    assert bits(state) == bits(runs(3))
    checkpoint.save(tmp_path, following, runs(following))
    assert names(tmp_path) == ["epoch-0000000003", f"epoch-000000000{following}"]
    epoch, state = checkpoint.restore(tmp_path, runs(0))
    assert epoch == following
    assert bits(state) == bits(runs(following))


@pytest.mark.parametrize("rest", [[], ["digests"], ["arrays"]])
def test_a_half_deleted_checkpoint_is_passed_over(tmp_path, rest):
    newest = two(tmp_path)
    for path in newest.iterdir():
        if path.name not in rest:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.warns(UserWarning, match="epoch-0000000006 .*; going on after epoch 3"):
        assert checkpoint.restore(tmp_path, runs(0))[0] == 3


def test_only_the_last_two_are_kept(tmp_path):
    (tmp_path / "epoch-notes").mkdir()  # not a checkpoint
    for epoch in (1, 2, 9, 10, 100):
        checkpoint.save(tmp_path, epoch, runs(epoch))
    assert names(tmp_path) == ["epoch-0000000010", "epoch-0000000100", "epoch-notes"]
    assert checkpoint.restore(tmp_path, runs(0))[0] == 100


def test_runs_that_went_back_write_their_future_anew(tmp_path):
    flip(two(tmp_path) / "digests")
    checkpoint.save(tmp_path, 4, runs(4))
    assert names(tmp_path) == ["epoch-0000000003", "epoch-0000000004"]
    checkpoint.save(tmp_path, 4, runs(5))
    assert names(tmp_path) == ["epoch-0000000003", "epoch-0000000004"]
    assert bits(checkpoint.restore(tmp_path, runs(0))[1]) == bits(runs(5))


def test_what_a_crash_left_of_an_epoch_saved_twice_goes_away(tmp_path):
    checkpoint.save(tmp_path, 4, runs(4))
    (tmp_path / "epoch-0000000004").rename(tmp_path / "epoch-0000000004.replaced")
    assert checkpoint.restore(tmp_path, runs(0)) is None
    checkpoint.save(tmp_path, 5, runs(5))
    assert names(tmp_path) == ["epoch-0000000005"]


def test_without_a_good_checkpoint_there_is_none(tmp_path):
    assert checkpoint.restore(tmp_path / "missing", runs(0)) is None
    assert checkpoint.restore(tmp_path, runs(0)) is None
    flip(two(tmp_path) / "digests")
    flip(tmp_path / "epoch-0000000003" / "digests")
    with pytest.warns(
        UserWarning, match=r"-0000000006 \(.*\) and .*-0000000003 \(.*\); there is no good one"
    ):
        assert checkpoint.restore(tmp_path, runs(0)) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda: {"kernel": jnp.zeros((8, 30, 20))},
            r"\['kernel'\] is float32\[5,30,20\] there and float32\[8,30,20\] here; continue",
        ),
        (
            lambda: {"running": jnp.zeros(5)},
            r"\['running'\] is bool\[5\] there and float32\[5\] here;",
        ),
        (
            lambda: {"key": jax.random.split(jax.random.key(0, impl="rbg"), 5)},
            r"\['key'\] is key<fry>\[5\] there and key<rbg>\[5\] here;",
        ),
        (lambda: {"more": jnp.zeros(5)}, r"\['more'\] is missing there and float32\[5\] here;"),
        (
            lambda: {"kernel": None, "running": None},
            r"\['kernel'\] is float32\[5,30,20\] there and missing here \(and 1 more\);",
        ),
    ],
)
def test_another_structure_is_refused_in_words(tmp_path, change, words):
    two(tmp_path)
    with pytest.raises(UserError, match=rf"epoch-0000000006 is of another structure: {words}"):
        checkpoint.restore(tmp_path, runs(0) | change())


def test_what_an_earlier_version_did_not_keep_stays_as_it_is_asked_for(tmp_path):
    checkpoint.save(tmp_path, 3, runs(3))
    wanted = runs(0) | {"measures": np.full((5, 2), np.nan)}
    with pytest.raises(UserError, match="measures"):
        checkpoint.restore(tmp_path, wanted)
    epoch, restored = checkpoint.restore(tmp_path, wanted, newer=["['measures']"])
    assert (epoch, bits(restored)) == (3, bits(runs(3) | {"measures": wanted["measures"]}))
    # What is kept comes back, whether it is new or not.
    checkpoint.save(tmp_path, 6, runs(6) | {"measures": np.ones((5, 2))})
    _, restored = checkpoint.restore(tmp_path, wanted, newer=["['measures']"])
    np.testing.assert_array_equal(restored["measures"], np.ones((5, 2)))


def test_training_goes_on_as_if_never_interrupted(tmp_path):
    experiment = read("experiments/xor_small.json")
    task, setup, _ = from_experiment(experiment)
    plan = Plan(experiment.batch_size, epochs=6)
    data = {"train": task.train}

    def train(states, first, count):
        states, history, done = train_chunk(
            setup, plan, 6, experiment.hyperparameters, states, data, first, count
        )
        assert done == count
        return states, history["train_loss"][:count]

    def start():
        return start_runs(
            setup, plan, experiment.hyperparameters, jnp.array(experiment.seeds), data
        )[0]

    uninterrupted, losses = train(start(), 1, 6)
    states, before = train(start(), 1, 3)
    checkpoint.save(tmp_path, 3, states)
    epoch, states = checkpoint.restore(tmp_path, jax.eval_shape(start))
    programs = chunk_program(tiny=True)._cache_size()
    states, after = train(states, epoch + 1, 3)
    assert bits(states) == bits(uninterrupted)
    assert bits(jnp.concatenate([before, after])) == bits(losses)
    assert chunk_program(tiny=True)._cache_size() == programs


def test_orbax_is_imported_late_and_leaves_nothing_behind(tmp_path):
    """In a process of its own, whose stderr has everything that logs, threads and exit print."""
    script = """
import sys, threading, time
import jax.numpy as jnp
from nnref.training import checkpoint
assert "orbax.checkpoint" not in sys.modules
assert checkpoint.restore(sys.argv[1], {"a": jnp.ones(5)}) is None
assert "orbax.checkpoint" not in sys.modules
for epoch in (1, 2, 3):
    checkpoint.save(sys.argv[1], epoch, {"a": jnp.ones(5)})
    checkpoint.restore(sys.argv[1], {"a": jnp.ones(5)})
until = time.monotonic() + 5
while threading.active_count() > 1 and time.monotonic() < until:
    time.sleep(0.01)
print([thread.name for thread in threading.enumerate()])
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.stdout, result.stderr) == ("['MainThread']\n", "")


def test_works_inside_a_running_event_loop_as_in_a_notebook(tmp_path):
    async def cell():
        loop = asyncio.get_running_loop()
        two(tmp_path)
        assert checkpoint.restore(tmp_path, runs(0))[0] == 6
        assert asyncio.get_event_loop() is loop

    asyncio.run(cell())


def test_the_event_loop_of_the_caller_is_left_alone(tmp_path):
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        two(tmp_path)
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_the_digests_can_be_read_by_people(tmp_path):
    text = (two(tmp_path) / "digests").read_text().partition("\n")[2]
    content = json.loads(text)
    assert content["epoch"] == 6
    assert content["structure"]["['kernel']"] == "float32[5,30,20]"
    assert content["structure"].keys() == content["arrays"].keys()


def test_a_checkpoint_of_other_data_is_passed_over(tmp_path):
    checkpoint.save(tmp_path, 3, runs(3), data="mine")
    assert checkpoint.restore(tmp_path, runs(0), data="mine")[0] == 3
    assert checkpoint.restore(tmp_path, runs(0), data="others") is None
    assert checkpoint.restore(tmp_path, {"of": jnp.ones(2)}, data="others") is None
    assert checkpoint.restore(tmp_path, runs(0))[0] == 3, "who does not say takes any"
