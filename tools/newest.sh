#!/bin/sh
# Runs the two commands of the README on a bare Debian stable and a bare Debian testing, whose Python is
# newer than that of most machines, with the last commit, and prints the table of docs/versions.md.
#
#   sh tools/newest.sh                   in a folder that is removed at the end
#   sh tools/newest.sh FOLDER            in FOLDER, which is kept: the systems are not fetched again
#   ARGS="-k xor" sh tools/newest.sh     with only some of the tests
#
# It needs root and debootstrap. What the commands printed is in FOLDER/*.log.
set -u
cd "$(dirname "$0")/.." || exit 2
if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
    echo "tools/newest.sh needs root and debootstrap (apt install debootstrap)." >&2
    exit 2
fi
kept=${1:-} tests=${ARGS:-} root='' worst=0
unset ARGS PYTHON
folder=${kept:-$(mktemp -d)} && mkdir -p "$folder" && folder=$(cd "$folder" && pwd -P) || exit 2

leave() {
    [ -z "$root" ] || for device in dev/shm dev sys proc; do umount "$root/$device" 2>/dev/null; done
}
trap 'leave; [ -n "$kept" ] || rm -rf --one-file-system "$folder"' EXIT
trap 'exit 130' INT TERM HUP

inside() { chroot "$root" env -C /nnref PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@" </dev/null; }

# The system, a fresh clone in it, and what pip and TLS are configured with on this machine: the
# variables of the environment pass by themselves. Folders that pip.conf names are not brought along.
prepare() { # suite
    root=$folder/$1
    if [ ! -f "$root/complete" ]; then
        rm -rf --one-file-system "$root"
        debootstrap --variant=minbase --include=python3,python3-venv,make,git,ca-certificates \
            "$1" "$root" >"$folder/$1.log" 2>&1 || return
        touch "$root/complete"
    fi
    for path in /etc/resolv.conf /etc/pip.conf "$HOME/.config/pip/pip.conf" /etc/ssl/certs; do
        [ -e "$path" ] || continue
        rm -rf "$root$path" # else links in it would lead out of the system
        mkdir -p "$root${path%/*}" && cp -rLT "$path" "$root$path" || return
    done
    rm -rf "$root/nnref" "$root${HOME:?}/.cache"
    git clone -q . "$root/nnref" || return
    for device in proc sys dev dev/shm; do mount --bind "/$device" "$root/$device" || return; done
}

row() { # suite, words of make
    log="$folder/$1 $2.log" began=$(date +%s)
    inside make "$2" ${3:+"$3"} >"$log" 2>&1
    code=$? seconds=$(($(date +%s) - began))
    # The last line of pytest, or that of nnref about the claim, and of what failed the end.
    outcome=$(sed -n -e 's/^=* *\([0-9].*\) in [0-9.]*s.*/\1/p' -e 's/^\(the claim [a-z ]*\).*/\1/p' "$log" | tail -n 1)
    [ $code = 0 ] || { worst=1 && outcome="exit code $code: ${outcome:-$(grep -v ^make: "$log" | tail -n 1)}"; }
    versions=$(inside .venv/bin/python -c 'import platform; from importlib.metadata import version
print(platform.python_version(), *map(version, ("jax", "flax", "numpy")), sep=" | ")')
    system=$(inside sh -c '. /etc/os-release; echo "$PRETTY_NAME"')
    echo "| $system | ${versions:-  |  |  | } | \`make $2${3:+ $3}\` | $outcome | $seconds |"
}

echo "| system | Python | jax | flax | numpy | command | outcome | seconds |"
echo "|---|---|---|---|---|---|---|---|"
for suite in trixie testing; do
    if prepare "$suite"; then
        row "$suite" experiment NAME=xor_small
        row "$suite" test ${tests:+"ARGS=$tests"}
    else
        worst=1 && echo "| $suite | | | | | | no system was made: $(tail -n 1 "$folder/$suite.log") | |"
    fi
    leave
done
exit $worst
