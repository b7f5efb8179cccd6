#!/bin/sh
# Makes .venv on first use, or brings it up to date; does nothing, in milliseconds, where it is.
#
#   sh tools/setup.sh run      what the command nnref needs (bench, docs: and the benchmarks, the site)
#   sh tools/setup.sh dev      that, and what the lint and the tests need
#   sh tools/setup.sh oldest   that of dev, each in the lowest version allowed, in .venv-oldest
#   sh tools/setup.sh newest   that of dev, each in the newest, in .venv-newest
#
# uv does the work if it is there and runs, otherwise python3 -m venv and pip. PYTHON=/path/to/python
# chooses the interpreter. Exit codes: 0 ready; 2 not ready, and the reason said; 130 interrupted.
set -u
what=${1:-run} venv=.venv wanted='.[dev]' cost='300 MB to fetch, a minute or two' constraints=
names=python3.14:python3.13:python3.12:python3.11:python3:python
case $what in
    run) wanted='.[data]' ;;
    bench) wanted='.[bench,data]' cost='up to several GB to fetch, several minutes' ;;
    docs) wanted='.[docs,data]' ;;
    oldest) venv=.venv-oldest names=python3.11:python3.12:python3.13:python3:python ;;
    newest) venv=.venv-newest ;;
esac

# What an environment is made from: this folder (it cannot be moved) and the part of pyproject.toml that
# says what to install. A copy of it, written last, says that the environment is ready.
recipe=$(pwd -P && awk '/^\[tool/ { exit } { print }' pyproject.toml) || exit 2
is_current() { [ "$(cat "$venv/nnref-$1" 2>/dev/null)" = "$recipe" ]; }
unfinished=$venv/nnref-unfinished log=$venv/log fresh=
if [ -x $venv/bin/python ] && [ ! -f $unfinished ]; then
    is_current "$what" && exit 0
    [ "$what" = run ] && { is_current dev || is_current bench || is_current docs; } && exit 0
fi

# Prints a Python that has the modules $2, or why it is of no use. Only running it tells: shims of pyenv
# and the stubs of macOS are there and fail, and Debian ships python3 without ensurepip.
works() {
    why=$("$1" -c "import sys
sys.version_info >= (3, 11) or sys.exit('is Python %d.%d, too old' % sys.version_info[:2])
import $2" 2>&1 </dev/null) && echo "$1" && return
    echo "$1: $(echo "$why" | tail -n 1)" >&2 && return 1
}
find_python() ( # in every folder of the PATH: a broken shim may hide a good interpreter
    [ -z "${PYTHON:-}" ] || { works "$PYTHON" "$1"; return; }
    IFS=:
    for name in $names; do
        for dir in $PATH; do [ -x "$dir/$name" ] && works "$dir/$name" "$1" && return; done
    done
    echo "there is no other Python on the PATH" >&2 && return 1
)

set_up() { # uv|pip
    advice='Install Python 3.11 or newer (on Debian with python3-venv), or name one: make PYTHON=/path/to/python3 ...'
    pip="$venv/bin/python -m pip --quiet install --no-compile" install="uv pip install --quiet --python $venv"
    if [ "$1" = pip ]; then
        install=$pip
        $venv/bin/python -m pip --version ||
            { python=$(find_python 'venv, ensurepip') && "$python" -m venv $venv; } || return
    elif [ ! -x $venv/bin/python ]; then # uv may know another Python, or fetch one
        python=$(find_python sys) || python=${PYTHON:-'>=3.11'}
        uv venv --quiet --allow-existing --python "$python" $venv || return
    fi
    advice='Connect the network and call again; HTTPS_PROXY, PIP_INDEX_URL, UV_DEFAULT_INDEX name a proxy or mirrors.'
    # The wheel of PyTorch is chosen by the configuration of pip, which uv does not read.
    [ "$what" != bench ] || { $install pip && $pip torch==2.13.0; } || return
    if [ "$what" = oldest ]; then # what pyproject.toml asks for, with == for >=
        sed -n 's/^ *"\([A-Za-z0-9_-]*\)[^>]*>=\([0-9.]*\).*/\1==\2/p' pyproject.toml >$venv/lowest.txt
        constraints="-c $venv/lowest.txt"
    fi
    $install -e "$wanted" $constraints
}

say() { printf 'nnref set-up: %s\n' "$*" >&2; }
refuse() { say "$*" && exit 2; }

# Work in progress holds the number of its process: a number without a process is work cut short.
kill -0 "$(cat $unfinished 2>/dev/null)" 2>/dev/null && refuse "another call sets up $venv now; wait for it."
here=$(pwd -P) made_in=$(cat $venv/nnref-* 2>/dev/null | head -n 1)
if [ -f $unfinished ] || [ "${made_in:-$here}" != "$here" ] || ! works $venv/bin/python sys >/dev/null 2>&1; then
    [ -n "$made_in" ] || [ ! -e $venv ] || refuse "$venv holds no Python 3.11 or newer that runs; move it away."
    rm -rf $venv && fresh=yes
fi
undo() { # twice: an interrupted installer may still be writing
    rm -f $unfinished $log-*
    [ -z "$fresh" ] || rm -rf $venv 2>/dev/null || { sleep 1 && rm -rf $venv; }
}
trap 'undo; exit 130' INT TERM HUP
mkdir -p $venv && echo $$ >$unfinished && rm -f "$venv/nnref-$what" || exit 2
say "${fresh:+first use: }setting up $venv ${fresh:+($cost) }..."
# Without a network the tools would try again for minutes.
export PIP_RETRIES="${PIP_RETRIES:-1}" UV_HTTP_RETRIES="${UV_HTTP_RETRIES:-1}" PIP_DISABLE_PIP_VERSION_CHECK=1
if ! { uv --version && set_up uv; } >$log-uv 2>&1 </dev/null && ! set_up pip >$log-pip 2>&1 </dev/null; then
    for tool in uv pip; do tail -n 11 $log-$tool | sed "s/^/  $tool | /" >&2; done
    undo
    refuse "that failed; what was said last stands above. $advice"
fi
printf '%s\n' "$recipe" >"$venv/nnref-$what"
rm -f $unfinished $log-*
