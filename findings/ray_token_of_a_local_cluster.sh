#!/bin/sh
# The first `ray.init()` that starts a cluster of its own leaves a token in ~/.ray/auth_token, and every
# cluster that this user starts by `ray start --head` from then on asks for it. `ray.init("auto")` shows the
# token. `ray.init("HOST:PORT")`, by the same user on the same machine, does not, and is refused with
# "Failed to connect to Ray cluster"; before that first `ray.init()` the same line connects. What helps is to
# set RAY_AUTH_MODE=token before `import ray`; behind it is too late.
#
# Seen with ray 2.60.0 on Python 3.11. This script, with a home of its own, connects to a cluster by its
# address, starts and leaves a local one, and does the first again:
#
#     address, before      connected
#     auto, after          connected
#     address, after       ConnectionError
#     address and mode     connected
#
# Needs Python 3.11 (PYTHON=...) and a package index. Exit code 0: as seen.
set -eu
python=${PYTHON:-python3.11}
folder=$(mktemp -d)
trap 'stop; rm -rf "$folder"' EXIT
stop() {
    [ -z "${head:-}" ] || kill "$head" 2>/dev/null || true
    [ -z "${head:-}" ] || wait "$head" 2>/dev/null || true
    head=
}
head=
port=6391
unset RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_ADDRESS || true
export RAY_USAGE_STATS_ENABLED=0

"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0
mkdir "$folder/home"
export HOME="$folder/home" PATH="$folder/venv/bin:$PATH"

cat >"$folder/connect.py" <<'END'
import logging
import sys

import ray

try:
    ray.init(sys.argv[1] or None, logging_level=logging.CRITICAL, log_to_driver=False)
    print("connected")
except ConnectionError as error:
    print(type(error).__name__)
END

start() {
    ray start --head --port "$port" --num-cpus 1 --include-dashboard=false --temp-dir "$folder/s" --block >/dev/null 2>&1 &
    head=$!
    sleep 15
}
said() { printf '    %-20s %s\n' "$1" "$(python "$folder/connect.py" "$2" 2>/dev/null | tail -n 1)"; }

{
    start
    said 'address, before' "127.0.0.1:$port"
    stop
    sleep 5
    python "$folder/connect.py" '' >/dev/null 2>&1
    start
    said 'auto, after' auto
    said 'address, after' "127.0.0.1:$port"
    export RAY_AUTH_MODE=token
    said 'address and mode' "127.0.0.1:$port"
} >"$folder/seen"
cat "$folder/seen"
sed -n 's/^#     \(a.*\)/    \1/p' "$0" | diff - "$folder/seen"
