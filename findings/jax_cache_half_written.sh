#!/bin/sh
# JAX writes an entry of its persistent compilation cache under the name by which it is looked up, and
# never writes over one that is there. So a process that ends while it writes (a kill, a full disk) leaves
# an entry that is cut short for good: every later process warns of it, and compiles that program anew.
# Removing the file mends it.
#
# Seen with jax 0.10.2 (Python 3.11) and 0.12.0.1 (Python 3.14, where a suite of tests kills processes on
# purpose: twenty later tests met one such entry). This script cuts an entry to half of its length, as a
# process does that is ended there, and runs the same program twice more:
#
#     run 1: no warning 1 2394
#     run 2: Error reading persistent compilation cache entry 1 1197
#     run 3: Error reading persistent compilation cache entry 1 1197
#
# The numbers are how many entries there are, and the bytes of the entry; the latter may differ.
# Needs Python 3.11 (PYTHON=...) and a package index. Exit code 0: as seen.
set -eu
python=${PYTHON:-python3.11}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat >"$folder/compile.py" <<'END'
import sys
import warnings
from pathlib import Path

import jax

cache = Path(sys.argv[1])
jax.config.update("jax_compilation_cache_dir", str(cache))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@jax.jit
def program(x):
    return 2 * x + 1


with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    assert program(3.0) == 7
entries = sorted(cache.glob("jit_program-*-cache"))
words = [str(each.message) for each in told if "persistent compilation cache" in str(each.message)]
print(words[0].partition(" for ")[0] if words else "no warning", len(entries), entries[0].stat().st_size)
END

"$python" -m venv "$folder/env"
"$folder/env/bin/pip" install -q --disable-pip-version-check \
    jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.0
run() { "$folder/env/bin/python" "$folder/compile.py" "$folder/cache"; }

first=$(run)
echo "run 1: $first"
case $first in "no warning 1 "*) ;; *) exit 1 ;; esac
entry=$(ls "$folder"/cache/jit_program-*-cache)
half=$((${first##* } / 2))
head -c "$half" "$entry" >"$folder/part"
mv "$folder/part" "$entry"
for number in 2 3; do
    again=$(run)
    echo "run $number: $again"
    [ "$again" = "Error reading persistent compilation cache entry 1 $half" ] || exit 1
done
