#!/bin/sh
# Each program that XLA's CPU backend has compiled holds three memory mappings of the process, whatever
# its size, for as long as its function lives or JAX's caches hold it. Linux allows a process 65,530
# (vm.max_map_count), so about 21,000 programs; where none is left, LLVM gives up and takes the process
# with it, without an exception. A long test run comes there: 55,700 mappings were counted at the end of
# one. jax.clear_caches() gives them back.
#
# Seen with jaxlib 0.10.2 (Python 3.11) and 0.12.0.1 (Python 3.13), Linux x86_64. This script compiles a
# hundred small programs, far from that limit:
#
#     3 mappings for each of 100 programs
#     fewer than 20 are left without the functions and the caches
#
# Needs Python 3.11 (PYTHON=...) and a package index. Exit code 0: as seen.
set -eu
python=${PYTHON:-python3.11}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat >"$folder/count.py" <<'END'
import gc
from pathlib import Path

import jax
import jax.numpy as jnp


def held():
    return Path("/proc/self/maps").read_text().count("\n")


x = jnp.ones((4, 4))
jax.jit(lambda x: x + 1)(x).block_until_ready()
before = held()
programs = [jax.jit(lambda x, k=k: jnp.sin(k * x) @ x) for k in range(100)]
for program in programs:
    program(x).block_until_ready()
print(f"{round((held() - before) / 100)} mappings for each of {len(programs)} programs")
del program, programs
jax.clear_caches()
gc.collect()
left = held() - before
print("fewer than 20 are left without the functions and the caches" if left < 20 else f"{left} left")
END

"$python" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install \
    jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.0
seen=$(JAX_PLATFORMS=cpu "$folder/venv/bin/python" -W ignore "$folder/count.py")
echo "$seen"
[ "$seen" = "3 mappings for each of 100 programs
fewer than 20 are left without the functions and the caches" ]
