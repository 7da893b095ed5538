#!/bin/sh
# Build ptyguard.pyz: one file, standard library only, the same bytes from the same input.
#
#   sh zipapp.sh [OUTPUT]        default dist/ptyguard.pyz; PYTHON=... names the interpreter
#
# Why it is not `python3 -m zipapp`:
# - The entries carry fixed times, modes and an order, so that two builds can be compared.
# - They are stored, not deflated, with byte-code beside each source: zipimport keeps no
#   cache, and compiling 8800 lines costs 90 ms at every start, loading them 20 ms.  Another
#   interpreter than the building one sees a foreign magic number and takes the source.
# - The version is written into the staged copy only; the tree is not touched.
# - A running .pyz is never rewritten: its later imports would break.  The new file is made
#   beside it, run once, and renamed over it.
set -eu

caller=$(pwd)
root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
PYTHON=${PYTHON:-python3}
output=${1:-$root/dist/ptyguard.pyz}
case $output in /*) ;; *) output=$caller/$output ;; esac

complain() { printf 'zipapp.sh: %s\n' "$*" >&2; }

staging=$(mktemp -d "${TMPDIR:-/tmp}/ptyguard-build.XXXXXX")
unfinished=
trap 'rm -rf "$staging" ${unfinished:+"$unfinished"}' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# The tag's version, when this very folder is a git work tree with one.  (An unpacked release
# inside somebody else's repository must not get that repository's tags: hence --show-cdup.)
version_of_git() (
    unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE      # set inside hooks, and not for this tree
    GIT_OPTIONAL_LOCKS=0
    export GIT_OPTIONAL_LOCKS
    cd "$root"
    cdup=$(git rev-parse --show-cdup 2>/dev/null) || exit 1
    [ -z "$cdup" ] || exit 1
    describe() {
        git describe --tags --dirty --match 'v[0-9]*.[0-9]*.[0-9]*' --match '[0-9]*.[0-9]*.[0-9]*' \
            "$@" 2>/dev/null
    }
    found=$(describe) || exit 1
    # A bare 1.2.3-dirty would be a pre-release, earlier than 1.2.3; with the count and the
    # commit it is what it is, later.
    case $found in *-dirty) found=$(describe --long) || exit 1 ;; esac
    printf '%s\n' "${found#v}"
)

version=$(version_of_git) || version=

# -S and an empty PYTHONPATH: nothing of this machine's packages takes part.  Not -I, which
# would ignore the hash seed too, and with it the order of set constants in byte-code.
unset PYTHONPATH PYTHONSTARTUP PYTHONOPTIMIZE PYTHONWARNINGS
mkdir -p "$(dirname -- "$output")"
unfinished=$(mktemp "$output.tmp.XXXXXX")
PYTHONHASHSEED=0 "$PYTHON" -B -S -s - "$root" "$staging" "$unfinished" "$version" <<'END_OF_BUILDER'
import sys

if sys.version_info < (3, 8):
    sys.exit("zipapp.sh: needs Python 3.8 or newer, PYTHON is %s" % sys.version.split()[0])

import configparser
import os
import py_compile
import re
import shutil
import stat
import zipfile

ROOT_MODULES = ["ptyguard.py", "ptyguard_posix.py", "ptyguard_win.py"]
SHEBANG = b"#!/usr/bin/env python3\n"
EPOCH = (1980, 1, 1, 0, 0, 0)       # the first moment that a zip file can name
OURS = re.compile(r'^OURS = "[^"\n]*"', re.MULTILINE)

# The shell has already found an interpreter, maybe one that cannot read the rest: so this
# file alone is written for any Python there is.
MAIN = '''\
import sys

if sys.version_info < (3, 8):
    sys.exit("ptyguard: needs Python 3.8 or newer, this is %s (%s)"
             % (sys.version.split()[0], sys.executable))

if __name__ == "__main__":
    from ptyguard import main
    sys.exit(main(sys.argv[1:]))
'''


def stage_sources(root, staging):
    """Copy what belongs into the archive, and nothing else; return the sorted names."""
    core = os.path.join(root, "ptyguard_core")
    names = ROOT_MODULES + ["ptyguard_core/" + name for name in os.listdir(core)
                            if name.endswith(".py") and not name.startswith(".")]
    os.mkdir(os.path.join(staging, "ptyguard_core"))
    for name in names:
        shutil.copyfile(os.path.join(root, name), os.path.join(staging, name))
    with open(os.path.join(staging, "__main__.py"), "w", encoding="ascii") as file:
        file.write(MAIN)
    return sorted(names + ["__main__.py"])


def choose_version(root, staging, described):
    """Return git's version if there is one that ptyguard can order, else setup.cfg's."""
    sys.path.insert(0, staging)
    from ptyguard_core.version import MalformedVersion, parse
    try:
        parse(described)
        return described
    except MalformedVersion as error:
        if described:
            print("zipapp.sh: the tag is not used:", error, file=sys.stderr)
    setup = configparser.ConfigParser()
    setup.read(os.path.join(root, "setup.cfg"), encoding="utf-8")
    written = setup.get("metadata", "version", fallback="")
    try:
        parse(written)
        return written
    except MalformedVersion as error:
        sys.exit("zipapp.sh: setup.cfg: %s" % error)


def stamp_version(staging, version):
    path = os.path.join(staging, "ptyguard_core", "version.py")
    with open(path, encoding="utf-8", newline="") as file:
        text, count = OURS.subn('OURS = "%s"' % version, file.read())
    if count != 1:
        sys.exit("zipapp.sh: ptyguard_core/version.py has %d lines OURS, expected 1" % count)
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def compile_sources(staging, names):
    """Compile each source; return the sorted names of the byte-code.

    Hash-based and unchecked: zipimport would compare a time stamp with the
    entry's, which it reads as local time, so that byte-code would be valid in
    one time zone only.  The archive never changes after it was made.
    """
    for name in names:
        # dfile: the name in tracebacks.  Not the staging path (reproducible), and none that
        # exists beside a checkout: the traceback module then asks the archive for the line.
        py_compile.compile(os.path.join(staging, name), cfile=os.path.join(staging, name + "c"),
                           dfile="ptyguard.pyz/" + name, doraise=True, optimize=0,
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    return [name + "c" for name in names]


def write_archive(path, staging, names):
    with open(path, "wb") as file:
        file.write(SHEBANG)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(names):
                entry = zipfile.ZipInfo(name, EPOCH)
                entry.create_system = 3         # Unix, wherever it is built
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                with open(os.path.join(staging, name), "rb") as source:
                    archive.writestr(entry, source.read(), zipfile.ZIP_STORED)
        file.flush()
        os.fsync(file.fileno())     # before the rename, or a power cut leaves an empty file
    os.chmod(path, 0o755)


def build(root, staging, path, described):
    try:
        sources = stage_sources(root, staging)
        version = choose_version(root, staging, described)
        stamp_version(staging, version)
        write_archive(path, staging, sources + compile_sources(staging, sources))
    except (OSError, py_compile.PyCompileError) as error:
        sys.exit("zipapp.sh: cannot build: %s" % error)
    with open(os.path.join(staging, "VERSION"), "w", encoding="ascii") as file:
        file.write(version)         # for the shell: what was chosen


build(*sys.argv[1:])
END_OF_BUILDER
version=$(cat "$staging/VERSION")

# It must run before it may take the place of one that does.  Its own directory: the real one
# is none of a build's business.
mkdir -m 700 "$staging/state"
unset PTYGUARD_SESSION PTYGUARD_SESSION_ID PTYGUARD_TEST_VERSION PTYGUARD_DEV
if ! said=$(PTYGUARD_DIR=$staging/state "$PYTHON" -I "$unfinished" --version </dev/null); then
    complain "the new archive fails: $PYTHON -I ptyguard.pyz --version (nothing was replaced)"
    exit 1
fi
case $said in
*"$version"*) ;;
*)
    complain "the new archive says \"$said\", expected version $version (nothing was replaced)"
    exit 1
    ;;
esac

mv -f "$unfinished" "$output"
unfinished=
printf '%s: ptyguard %s, %s bytes\n' "$output" "$version" "$(wc -c <"$output" | tr -d ' ')"
