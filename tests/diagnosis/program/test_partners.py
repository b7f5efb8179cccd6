"""Partners of a contrastive loss: those that it pulls together, against those that are alike."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nnref
from nnref.diagnosis.program.at_start import LossAtStart
from nnref.diagnosis.program.partners import partners

N, WIDTH = 24, 12
PARAMS = {"kernel": np.random.default_rng(1).normal(size=(WIDTH, 5)).astype(np.float32)}


def views(related=True):
    rng = np.random.default_rng(0)
    first = rng.normal(size=(N, WIDTH))
    second = first + 0.5 * rng.normal(size=(N, WIDTH)) if related else rng.normal(size=(N, WIDTH))
    return {"first": np.float32(first), "second": np.float32(second)}


def loss_of(partner, beside=False, other=None):
    """NT-Xent; the views of a sample behind each other, or `beside` each other."""

    def loss(params, batch):
        embed = [batch[name] @ params["kernel"] for name in ("first", "second")]
        z = jnp.stack(embed, 1).reshape(2 * N, -1) if beside else jnp.concatenate(embed)
        z = z / jnp.linalg.norm(z, axis=1, keepdims=True)
        alike = z @ z.T / 0.5 - 1e9 * jnp.eye(2 * N)
        if other is not None:  # of the same class: many are pulled together
            return -jnp.mean(jnp.where(other, jax.nn.log_softmax(alike), 0))
        return optax.softmax_cross_entropy_with_integer_labels(alike, partner).mean()

    return loss


BEHIND, BESIDE = (np.arange(2 * N) + N) % (2 * N), np.arange(2 * N) ^ 1
CLASSES = np.eye(2 * N, dtype=bool) ^ (np.arange(2 * N)[:, None] % 4 == np.arange(2 * N) % 4)


@pytest.mark.parametrize(
    ("loss", "batch", "found"),
    [
        (loss_of(BESIDE), views(), "0 and 24, 1 and 25"),
        (loss_of(BEHIND, beside=True), views(), "0 and 1, 2 and 3"),
        (loss_of(BEHIND), views(), ""),
        (loss_of(BESIDE, beside=True), views(), ""),
        (loss_of(BESIDE), views(related=False), ""),
        (loss_of(None, other=CLASSES), views(), ""),
    ],
    ids=["counted beside", "counted behind", "behind", "beside", "strangers", "classes"],
)
def test_partners_are_those_that_are_alike(loss, batch, found):
    findings = list(partners(LossAtStart(loss, PARAMS, batch, keyed=False)))
    assert len(findings) == bool(found)
    if found:
        assert f"alike are rows {found}" in findings[0].evidence
        assert findings[0].cause == "loss_mismatch"
        assert "test_partners.py" in findings[0].where


def test_a_loop_is_asked_with_all_its_batches():
    """The two views have little in common: of one batch that is within chance."""
    rng, loss, optimizer = np.random.default_rng(2), loss_of(BESIDE), optax.adam(1e-3)

    def batch(number):
        shared = rng.normal(size=(N, WIDTH))
        made = [np.float32(shared + 2 * rng.normal(size=(N, WIDTH))) for _ in range(2)]
        return dict(zip(("first", "second"), made, strict=True))

    @jax.jit
    def step(state, batch):
        params, moments = state
        value, gradient = jax.value_and_grad(loss)(params, batch)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(params, updates), moments), value

    found = nnref.examine(step, (PARAMS, optimizer.init(PARAMS)), batch, effort=0)
    assert [f.cause for f in found if f.severity == "fault"] == ["loss_mismatch"]
    assert "another order" in next(iter(found)).evidence
