#!/bin/sh
# On the CPU, jaxlib 0.12.0.1 no longer compiles a small loop as one function where its body takes the
# gradient of a product `h @ w`. jaxlib 0.10.2 does. Nothing is said: the option that asks for it
# (xla_cpu_small_while_loop_byte_threshold) and those that keep libraries out of the loop are accepted
# by both, and the results are the same; the loop takes several times as long.
# The same product, written so that its gradients sum over the last axis of the left side and the first
# one of the right, is compiled whole by both.
#
# Seen with Python 3.13, Linux x86_64, a network of 2-4-1 units on four rows:
#
#     jaxlib 0.10.2    h @ w: whole        tensordot: whole
#     jaxlib 0.12.0.1  h @ w: in pieces    tensordot: whole
#
# Needs a Python of 3.12 or newer (PYTHON=...) and a package index. Exit code 0: as seen.
set -eu
python=${PYTHON:-python3.13}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat >"$folder/loop.py" <<'END'
import jax
import jax.numpy as jnp

PRODUCTS = {
    "h @ w": lambda h, w: h @ w,
    "tensordot": lambda h, w: jnp.tensordot(jnp.moveaxis(h, -1, 0), w.T, axes=(0, 1)),
}
x = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
y = jnp.array([0.0, 1.0, 1.0, 0.0])
weights = [jnp.full((2, 4), 0.5), jnp.full((4, 1), 0.5)]
options = {"xla_cpu_experimental_ynn_fusion_type": "", "xla_cpu_multi_thread_eigen": False}


def form(product):
    def loss(weights):
        return jnp.mean((product(jnp.tanh(product(x, weights[0])), weights[1])[:, 0] - y) ** 2)

    def step(carry):
        number, weights = carry
        gradients = jax.grad(loss)(weights)
        return number + 1, jax.tree.map(lambda w, g: w - 0.1 * g, weights, gradients)

    def train(weights, steps):
        return jax.lax.while_loop(lambda carry: carry[0] < steps, step, (0, weights))

    program = jax.jit(train, compiler_options=options).lower(weights, 1000).compile()
    return "whole" if "xla_cpu_small_call" in program.as_text() else "in pieces"


print(", ".join(f"{name}: {form(product)}" for name, product in PRODUCTS.items()))
END

seen() { # version of jax and jaxlib
    "$python" -m venv "$folder/$1"
    "$folder/$1/bin/python" -m pip --quiet --disable-pip-version-check install "jax==$1" "jaxlib==$1"
    XLA_FLAGS=--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=16384 \
        JAX_PLATFORMS=cpu "$folder/$1/bin/python" "$folder/loop.py"
}

old=$(seen 0.10.2)
new=$(seen 0.12.0.1)
echo "jaxlib 0.10.2    $old"
echo "jaxlib 0.12.0.1  $new"
[ "$old" = "h @ w: whole, tensordot: whole" ] && [ "$new" = "h @ w: in pieces, tensordot: whole" ]
