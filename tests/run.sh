#!/bin/sh
# Run the tests in a virtual environment of their own.
#
#   sh tests/run.sh [PYTEST OPTIONS] [FILES]      default: all of tests/
#   PYTHON=python3.8 sh tests/run.sh              another interpreter, another environment
#
# Environments live in .venv-tests/NAME-VERSION and are used again.  Exit status: pytest's;
# 77 when the tests could not be run at all (no pytest to be had), and nothing was tested.
set -eu

cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
NOT_RUN=77                  # what automake's and meson's runners take for "skipped"

say() { printf 'tests/run.sh: %s\n' "$*" >&2; }

# What a developer's own session has set would lead the tests to it.
unset PTYGUARD_DIR PTYGUARD_SESSION PTYGUARD_SESSION_ID PTYGUARD_DEV PTYGUARD_TEST_VERSION

# The name of the interpreter's environment; the same version of the same implementation,
# wherever it is installed, is one.
name=$("$PYTHON" -I -c 'import sys
print("%s-%d.%d.%d" % ((sys.implementation.name,) + sys.version_info[:3]))' 2>/dev/null) || {
    say "PYTHON=$PYTHON does not run, or is no Python 3"
    exit $NOT_RUN
}
venv=.venv-tests/$name

can_test() { "$1" -I -c 'import pytest, hypothesis' >/dev/null 2>&1; }

# Tests may be started twice at once: make the environment aside, rename it into place, and
# if somebody else's is there by then, use that.  (An environment finds itself by its
# pyvenv.cfg, so it may be renamed; only its console scripts may not, and none is used.)
make_venv() {
    new=.venv-tests/.new-$name-$$
    trap 'rm -rf "$new"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' HUP TERM
    mkdir -p .venv-tests
    "$PYTHON" -m venv "$new" >"$log" 2>&1 || return 1
    # One retry and 15 s: without a network this is to fail, not to hang.
    "$new/bin/python" -m pip --disable-pip-version-check --no-input --retries 1 --timeout 15 \
        install -q pytest hypothesis >"$log" 2>&1 </dev/null || return 2
    can_test "$venv/bin/python" && return 0
    rm -rf "$venv"
    "$PYTHON" -c 'import os, sys; os.rename(sys.argv[1], sys.argv[2])' "$new" "$venv" \
        || can_test "$venv/bin/python"
}

# Debian keeps ensurepip in a package of its own, named after the interpreter.
venv_package() {
    case $name in
    pypy-*) echo pypy3-venv ;;
    *) echo "python$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv" ;;
    esac
}

has_ensurepip() { "$PYTHON" -I -c 'import venv, ensurepip' >/dev/null 2>&1; }

install_venv_package() {
    [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    say "installing $1"
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    apt-get install -qq -y "$1" >"$log" 2>&1 </dev/null && return 0
    { apt-get update -qq && apt-get install -qq -y "$1"; } >"$log" 2>&1 </dev/null
}

if can_test "$venv/bin/python"; then
    python=$venv/bin/python
else
    log=$(mktemp "${TMPDIR:-/tmp}/ptyguard-tests.XXXXXX")
    if ! has_ensurepip; then
        package=$(venv_package)
        install_venv_package "$package" ||
            say "$PYTHON lacks venv or ensurepip; on Debian or Ubuntu: apt-get install $package"
    fi
    if (make_venv); then
        python=$venv/bin/python
    elif can_test "$PYTHON"; then
        say "no environment for $name ($(tail -n 1 "$log")); using $PYTHON and its own pytest"
        python=$PYTHON
    else
        say "cannot make $venv with pytest and hypothesis; the last words were:"
        tail -n 5 "$log" >&2
        say "with a network this works by itself; without one, install both for $PYTHON"
        rm -f "$log"
        exit $NOT_RUN
    fi
    rm -f "$log"
fi

# Everything in tests/, unless an argument names a part of it.
everything=tests
for argument; do
    case $argument in
    -*) ;;
    *) if [ -e "${argument%%::*}" ]; then everything=; fi ;;
    esac
done
exec "$python" -m pytest -q ${everything:+"$everything"} "$@"
