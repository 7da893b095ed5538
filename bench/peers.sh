#!/bin/sh
# Install what Debian and Ubuntu have of the programs that bench/run.py measures beside ptyguard.
#
#   sh bench/peers.sh
#
# Quiet where all goes well.  What is missing in the end is said, and makes the status 1:
# the suite runs without it, too, and names it as missing.
set -eu

PEERS="dtach abduco tmux screen"

is_missing() { ! command -v "$1" >/dev/null 2>&1; }
say() { printf 'peers.sh: %s\n' "$*" >&2; }

# What root does: as root, or by sudo where that asks nothing.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=1 \
        -o Acquire::http::Timeout=15 -o DPkg::Lock::Timeout=60 "$@" >/dev/null 2>&1 </dev/null
}

updated=
for peer in $PEERS; do
    is_missing "$peer" || continue
    is_missing apt-get && continue
    if [ -z "$updated" ]; then          # a fresh container has no lists
        updated=yes
        install update || say "apt-get update failed; trying without"
    fi
    install install -y --no-install-recommends "$peer" || say "apt-get cannot install $peer"
done

status=0
for peer in $PEERS; do
    if is_missing "$peer"; then
        say "$peer is missing"
        status=1
    fi
done
exit $status
