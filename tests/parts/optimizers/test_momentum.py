"""Optimizers that step along a velocity: the first gradient, and Muon's orthogonal matrix."""

import jax
import numpy as np
from trajectories import directions, jitted

from nnref.parts.optimizers import OPTIMIZERS
from nnref.parts.optimizers.muon import orthogonal


def test_first_gradient_is_damped_like_all_others():
    g = [[1.0], [0.0], [0.0]]
    optimizer = OPTIMIZERS["sgd"](momentum=0.9, dampening=0.4)
    np.testing.assert_allclose(directions(optimizer, g)[:, 0], [0.6, 0.54, 0.486], rtol=1e-12)


def test_orthogonal_sets_singular_values_near_one():
    with jax.enable_x64(True):
        left, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 30)))
        right, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(30, 30)))
        s = np.geomspace(0.008, 1, 30)
        for matrix in (left * s @ right, (left * s @ right).T):
            turned = np.asarray(jitted(orthogonal)(matrix, 1e-7))
            values = np.linalg.svd(turned, compute_uv=False)
            assert values.min() > 0.68
            assert values.max() < 1.21
            # The singular vectors stay: U^T O V is diagonal.
            core = (
                (left.T @ turned @ right.T) if len(turned) == 40 else (left.T @ turned.T @ right.T)
            )
            np.testing.assert_allclose(core - np.diag(np.diag(core)), 0, atol=1e-12)
