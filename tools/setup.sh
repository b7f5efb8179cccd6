#!/bin/sh
# Makes .venv on first use, or brings it up to date; does nothing, in milliseconds, where it is.
#
#   sh tools/setup.sh run      what the command nnref needs
#   sh tools/setup.sh dev      that, and what the lint and the tests need
#   sh tools/setup.sh bench    that of run, and what the benchmarks compare with
#
# uv does the work if it is there and runs, otherwise python3 -m venv and pip. PYTHON=/path/to/python
# chooses the interpreter. Exit codes: 0 ready; 2 not ready, and the reason said; 130 interrupted.

set -u
what=${1:-run}
started=$(date +%s)
fresh=no

say() { printf '%s\n' "nnref set-up: $*" >&2; }
note() { printf '%s\n' "  $*" >&2; }

# ---- Is there anything to do?

# What .venv is made from: this folder (an environment cannot be moved) and the part of pyproject.toml
# that says what to install.
recipe() {
    pwd -P
    awk '/^\[tool/ { exit } { print }' pyproject.toml
}
is_current() { [ -f ".venv/nnref-$1" ] && [ "$(cat ".venv/nnref-$1")" = "$recipe_now" ]; }

recipe_now=$(recipe) || exit 2
if [ -x .venv/bin/python ] && [ ! -f .venv/nnref-unfinished ]; then
    is_current "$what" && exit 0
    [ "$what" = run ] && { is_current dev || is_current bench; } && exit 0
fi

# ---- A Python that runs

# Prints the version and fails if it is too old, or ($2 = venv) cannot make environments: Debian ships
# python3 without python3-venv. Running it is the only test that counts: shims of pyenv and the stubs of
# macOS are on the PATH and fail.
try_python() {
    "$1" -c '
import sys
print("%d.%d.%d" % sys.version_info[:3])
if sys.version_info < (3, 11):
    sys.exit(3)
if sys.argv[1] == "venv":
    try:
        import ensurepip, venv
    except ImportError:
        sys.exit(4)
' "$2" </dev/null 2>/dev/null
}

consider() { # path, venv|any: sets $python and $version, or adds to $tried why not
    version=$(try_python "$1" "$2")
    case $? in
        0) python=$1; return 0 ;;
        3) why="is Python $version, and 3.11 or newer is needed" ;;
        4) why="is Python $version without the modules venv and ensurepip (on Debian and Ubuntu: apt install python3-venv)" ;;
        *) why="does not run" ;;
    esac
    tried="$tried
  $1 $why"
    return 1
}

find_python() { # venv|any
    python='' tried=''
    if [ -n "${PYTHON:-}" ]; then
        chosen=$(command -v "$PYTHON" 2>/dev/null) || chosen=$PYTHON
        consider "$chosen" "$1"
        return
    fi
    for name in python3.13 python3.12 python3.11 python3 python; do
        # Every folder of the PATH, not only the first that has the name: a broken shim may hide a
        # good interpreter.
        rest=$PATH:
        while [ -n "$rest" ]; do
            dir=${rest%%:*} rest=${rest#*:}
            [ -n "$dir" ] && [ -f "$dir/$name" ] && [ -x "$dir/$name" ] || continue
            consider "$dir/$name" "$1" && return 0
        done
    done
    # A Python that uv fetched earlier lies outside the PATH.
    [ -n "$uv_version" ] && found=$(uv python find --no-python-downloads '>=3.11' 2>/dev/null </dev/null) &&
        consider "$found" "$1"
}

refuse_python() {
    undo
    if [ -n "$tried" ]; then
        say "no usable Python was found. Tried:"
        printf '%s\n' "${tried#?}" >&2
    else
        say "no Python was found on the PATH (looked for python3.13, python3.12, python3.11, python3, python)."
    fi
    note "Install Python 3.11 or newer (python.org, your system's packages, or: uv python install 3.13),"
    note "or name one: make PYTHON=/path/to/python3 ..."
    exit 2
}

# ---- Can packages be had at all?

# Runs a command, and whatever it starts, for at most $1 seconds. `timeout` is not on every system;
# Python is.
limit() {
    "$python" -c '
import os, signal, subprocess, sys
process = subprocess.Popen(sys.argv[2:], start_new_session=True)
try:
    sys.exit(process.wait(float(sys.argv[1])))
except (subprocess.TimeoutExpired, KeyboardInterrupt):
    os.killpg(process.pid, signal.SIGKILL)
    print("no answer within %s s" % sys.argv[1])
    sys.exit(124)
' "$@" </dev/null 2>&1
}

# The tools would retry for minutes, so one package is asked for first, with the tool itself: it knows
# the user's mirrors, proxies and certificates. Both answers together stay within 15 s. The package is
# the rarest of the dependencies: a mirror that holds only some of them lacks it first.
rarest=tensorflow-datasets

uv_reaches_packages() {
    answer=$(printf '%s\n' "$rarest" >"$scratch/wanted" && UV_HTTP_RETRIES=0 UV_HTTP_TIMEOUT=3 UV_HTTP_CONNECT_TIMEOUT=3 \
        limit 4 uv pip compile --quiet --no-deps --python "$python" "$scratch/wanted")
}

# pip runs from the wheel that ensurepip carries: nothing need be made before the answer is known.
pip_reaches_packages() {
    wheel=$("$python" -c '
import ensurepip, glob, os, sysconfig
folders = [sysconfig.get_config_var("WHEEL_PKG_DIR") or "", os.path.join(os.path.dirname(ensurepip.__file__), "_bundled")]
print([path for folder in folders for path in glob.glob(os.path.join(folder, "pip-*.whl"))][0])
' 2>/dev/null) || return 0
    left=$((11 - $(date +%s) + started))
    [ "$left" -ge 4 ] || left=4
    answer=$(PYTHONPATH=$wheel limit "$left" "$python" -m pip --disable-pip-version-check \
        --retries 0 --timeout 4 index versions "$rarest")
}

refuse_network() {
    say "no packages can be fetched, so nothing was set up. Tried:"
    printf '%s\n' "${asked#?}" >&2
    note "The first use needs the network. Connect it and call make again; behind a proxy set HTTPS_PROXY,"
    note "with a mirror of your own set PIP_INDEX_URL (for uv: UV_DEFAULT_INDEX)."
    exit 2
}
remember_answer() { # tool
    asked="$asked
  $1: $(printf '%s\n' "$answer" | grep -v '^WARNING' | awk 'NF { last = $0 } END { sub(/^ *(cause: )?/, "", last); print last }')"
}

# ---- What is there already

# While .venv is being worked on it holds the number of the process that does it. A number that no
# process has any more is work that was cut short: nothing can be known of that .venv.
if [ -f .venv/nnref-unfinished ]; then
    other=$(cat .venv/nnref-unfinished)
    if [ -n "$other" ] && kill -0 "$other" 2>/dev/null; then
        say "another call (process $other) is setting up .venv right now. Call again when it is done."
        exit 2
    fi
    rm -rf .venv
fi

if [ -e .venv ]; then
    made_for=$(cat .venv/nnref-run .venv/nnref-dev .venv/nnref-bench 2>/dev/null | head -n 1)
    if [ -n "$made_for" ]; then
        # Made here, but moved since, or its Python was removed from the machine.
        { [ "$made_for" = "$(pwd -P)" ] && try_python .venv/bin/python any >/dev/null; } || rm -rf .venv
    elif ! try_python .venv/bin/python any >/dev/null; then
        say ".venv is there, was not made by this set-up, and holds no Python 3.11 or newer that runs."
        note "Move it away or remove it (rm -r .venv) and call make again."
        exit 2
    fi
fi

# ---- Choose the tools, and only then make anything

uv_version=$(uv --version 2>/dev/null </dev/null) || uv_version=
scratch=$(mktemp -d) || exit 2
log=$scratch/log
tool='' asked=''

undo() {
    rm -rf "$scratch"
    [ "$fresh" = yes ] || return 0
    # Twice: an interrupted installer may still be writing.
    rm -rf .venv 2>/dev/null || { sleep 1; rm -rf .venv; }
}
trap 'undo; exit 130' INT
trap 'undo; exit 143' TERM HUP

choose_python() { # venv|any
    if [ -x .venv/bin/python ]; then
        consider .venv/bin/python any
    else
        find_python "$1"
    fi
}

if [ -n "$uv_version" ]; then
    choose_python any || refuse_python
    if uv_reaches_packages; then tool=uv; else remember_answer "uv"; fi
fi
if [ -z "$tool" ]; then
    if choose_python venv; then
        if pip_reaches_packages; then tool=pip; else remember_answer "pip of $python"; fi
    elif [ -z "$uv_version" ]; then
        refuse_python
    fi
fi
[ -n "$tool" ] || { undo; refuse_network; }

# ---- Make it

fail() {
    say "$1 failed. Its last lines:"
    tail -n 15 "$log" | sed 's/^/  | /' >&2
    undo
    if [ "$fresh" = yes ]; then note "The unfinished .venv was removed; call make again to start over."; fi
    rm -f .venv/nnref-unfinished
    exit 2
}

with_uv() { uv pip install --quiet --no-compile-bytecode --python .venv/bin/python "$@"; }
with_pip() {
    .venv/bin/python -m pip --quiet --disable-pip-version-check --retries "${PIP_RETRIES:-2}" \
        install --no-compile "$@"
}
pip_is_there() { .venv/bin/python -m pip --version || .venv/bin/python -m ensurepip; }

# Byte code of what a run imports, and of no more: compiling all that is installed takes half a minute,
# compiling nothing makes every start slow where PYTHONDONTWRITEBYTECODE is set. What cannot be
# imported will say so when it is needed.
compile_imports() {
    PYTHONDONTWRITEBYTECODE='' .venv/bin/python -c '
import importlib
for room in ("runs", "report.terminal", "report.pictures"):
    try:
        importlib.import_module("nnref." + room)
    except Exception:
        pass
import matplotlib.backends.backend_agg, PIL.PngImagePlugin, sklearn.datasets
'
}

cost="300 MB to fetch, a minute or two"
case $what in
    run) purpose="nnref" ;;
    dev) purpose="nnref and its tests" ;;
    bench) purpose="nnref, PyTorch and Keras" cost="up to several GB to fetch, several minutes" ;;
    *) say "no such set-up: $what (run, dev or bench)"; exit 2 ;;
esac
if [ -e .venv ]; then
    say "bringing .venv up to date for $purpose, with $tool and Python $version ..."
else
    say "first use: making .venv for $purpose, with $tool and Python $version ($cost) ..."
    fresh=yes
    mkdir .venv || exit 2
fi
echo $$ >.venv/nnref-unfinished
rm -f ".venv/nnref-$what"

if [ "$fresh" = yes ]; then
    if [ "$tool" = uv ]; then
        uv venv --quiet --allow-existing --python "$python" .venv >"$log" 2>&1 || fail "uv venv"
    else
        "$python" -m venv .venv >"$log" 2>&1 || fail "$python -m venv"
    fi
fi

[ "$tool" = uv ] || pip_is_there >"$log" 2>&1 || fail "getting pip into .venv"
case $what in
    run) "with_$tool" -e . >"$log" 2>&1 || fail "$tool install" ;;
    dev) "with_$tool" -e '.[dev]' >"$log" 2>&1 || fail "$tool install" ;;
    bench)
        # The wheel of PyTorch is chosen by pip's own configuration, which uv does not read.
        [ "$tool" = pip ] || with_uv pip >"$log" 2>&1 || fail "uv install"
        with_pip torch==2.13.0 >"$log" 2>&1 || fail "pip install torch"
        "with_$tool" -e '.[bench]' >"$log" 2>&1 || fail "$tool install"
        ;;
esac
compile_imports >/dev/null 2>&1

printf '%s\n' "$recipe_now" >".venv/nnref-$what"
rm -rf .venv/nnref-unfinished "$scratch"
say "done in $(($(date +%s) - started)) s."
