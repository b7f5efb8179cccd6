#!/bin/sh
# In Flax 0.12.8 `nnx.BatchNorm` gives back float32 for inputs, scale and bias in bfloat16, where
# `linen.BatchNorm` and `nnx.LayerNorm` give bfloat16. Its running averages are float32, as they should
# be, and are among the arrays whose types decide that of the result, in training too, where they are not
# read. So all layers behind the first batch normalization are computed in float32, and nothing is said.
# With `dtype=jnp.bfloat16` the result is bfloat16 and the running averages stay float32.
#
# Seen with Python 3.11, Linux x86_64, jax 0.10.2, flax 0.12.8:
#
#     nnx.BatchNorm float32, its running mean float32
#     nnx.BatchNorm with dtype bfloat16, its running mean float32
#     linen.BatchNorm bfloat16, its running mean float32
#     nnx.LayerNorm bfloat16
#
# Needs a package index (PYTHON=... for another Python of 3.11). Exit code 0: as seen.
set -eu
python=${PYTHON:-python3.11}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat >"$folder/half.py" <<'END'
import jax
import jax.numpy as jnp
from flax import linen, nnx

half = jnp.bfloat16
x = jnp.ones((4, 3), half)


def batch_norm(**settings):
    layer = nnx.BatchNorm(3, param_dtype=half, rngs=nnx.Rngs(0), **settings)
    return f"{layer(x).dtype}, its running mean {layer.mean.dtype}"


print("nnx.BatchNorm", batch_norm())
print("nnx.BatchNorm with dtype", batch_norm(dtype=half))
layer = linen.BatchNorm(use_running_average=False, param_dtype=half)
variables = layer.init(jax.random.key(0), x)
outputs, _ = layer.apply(variables, x, mutable=["batch_stats"])
print(f"linen.BatchNorm {outputs.dtype}, its running mean {variables['batch_stats']['mean'].dtype}")
print("nnx.LayerNorm", nnx.LayerNorm(3, param_dtype=half, rngs=nnx.Rngs(0))(x).dtype)
END
cat >"$folder/expected" <<'END'
nnx.BatchNorm float32, its running mean float32
nnx.BatchNorm with dtype bfloat16, its running mean float32
linen.BatchNorm bfloat16, its running mean float32
nnx.LayerNorm bfloat16
END

"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 flax==0.12.8
JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/half.py" >"$folder/seen"
cat "$folder/seen"
diff "$folder/expected" "$folder/seen"
