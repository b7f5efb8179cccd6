#!/bin/sh
# jax2onnx 0.17.1 writes a product that sums over the first axis of both sides, as in `a.T @ b` written
# with lax.dot_general, as a Gemm without the transposition: the file computes `a @ b`. Of square
# matrices these are other numbers of the same shape, and neither the export nor the file says anything;
# of others the file cannot be run. Written as `a.T @ b`, the same product is exported rightly.
#
# Seen with Python 3.11, Linux x86_64, jax 0.10.2, onnx 1.23.2 and its reference evaluator:
#
#     dot_general over axes 0 and 0: as a @ b
#     a.T @ b: as a.T @ b
#
# Needs Python 3.11 (PYTHON=...) and a package index. Exit code 0: as seen.
set -eu
python=${PYTHON:-python3.11}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat >"$folder/export.py" <<'END'
import jax
import numpy as np
from jax2onnx import to_onnx
from onnx.reference import ReferenceEvaluator

a, b = np.random.default_rng(0).normal(size=(2, 3, 3)).astype(np.float32)
FORMS = {
    "dot_general over axes 0 and 0": lambda a, b: jax.lax.dot_general(a, b, (((0,), (0,)), ((), ()))),
    "a.T @ b": lambda a, b: a.T @ b,
}
for name, form in FORMS.items():
    np.testing.assert_allclose(form(a, b), a.T @ b, rtol=1e-5)  # in JAX both are the same
    model = to_onnx(form, [a.shape, b.shape])
    inputs = dict(zip((one.name for one in model.graph.input), (a, b)))
    (given,) = ReferenceEvaluator(model).run(None, inputs)
    meanings = {"a.T @ b": a.T @ b, "a @ b": a @ b}
    same = [word for word, value in meanings.items() if np.allclose(given, value, rtol=1e-4)]
    print(f"{name}: as {' and '.join(same) or 'neither'}")
END

"$python" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install \
    jax==0.10.2 jaxlib==0.10.2 jax2onnx==0.17.1 onnx==1.23.2 numpy==2.4.6
seen=$(JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W ignore "$folder/export.py" 2>/dev/null)
echo "$seen"
[ "$seen" = "dot_general over axes 0 and 0: as a @ b
a.T @ b: as a.T @ b" ]
