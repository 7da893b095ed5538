#!/bin/sh
# Build ptyguard.pyz: one file, standard library only, the same bytes from the same input.
#
#   sh zipapp.sh [OUTPUT]        default dist/ptyguard.pyz; PYTHON=... names the interpreter
#
# PYTHONS=... names those that byte-code is put in for, beside PYTHON (words; may be empty);
# unset: all that are found here, of 3.8 or later.
#
# Why it is not `python3 -m zipapp`:
# - The entries carry fixed times, modes and an order, so that two builds can be compared.
# - zipimport keeps no cache, and compiling 8800 lines costs 90 ms at every start.  So there is
#   byte-code for each interpreter at hand, in a folder of its own, chosen by its magic number;
#   another interpreter takes the sources.  What quick verbs load is stored, the rest deflated.
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

# Interpreters, one a line, in a fixed order; the same one may come twice, and a pyenv shim may
# have no version behind it.
interpreters() (
    if [ "${PYTHONS+set}" ]; then
        printf '%s\n' $PYTHONS         # words, on purpose
        exit
    fi
    for name in python3 python3.8 python3.9 python3.10 python3.11 python3.12 python3.13 python3.14 \
            python3.15 pypy3; do
        command -v "$name" || true
    done
    for root in ${PYENV_ROOT:+"$PYENV_ROOT"} ${HOME:+"$HOME/.pyenv"}; do
        ls -d "$root"/versions/*/bin/python3 2>/dev/null || true
    done
)

# -S and an empty PYTHONPATH: nothing of this machine's packages takes part.  Not -I, which
# would ignore the hash seed too, and with it the order of set constants in byte-code.
unset PYTHONPATH PYTHONSTARTUP PYTHONOPTIMIZE PYTHONWARNINGS
mkdir -p "$(dirname -- "$output")"
unfinished=$(mktemp "$output.tmp.XXXXXX")
PYTHONHASHSEED=0 "$PYTHON" -B -S -s - "$root" "$staging" "$unfinished" "$version" "$(interpreters)" <<'END_OF_BUILDER'
import sys

if sys.version_info < (3, 8):
    sys.exit("zipapp.sh: needs Python 3.8 or newer, PYTHON is %s" % sys.version.split()[0])

import configparser
import marshal
import os
import py_compile
import re
import shutil
import subprocess
import zipfile

ROOT_MODULES = ["ptyguard.py", "ptyguard_posix.py", "ptyguard_win.py"]
SHEBANG = b"#!/usr/bin/env python3\n"
BESIDE = ["__main__.py", "ptyguard.py", "ptyguard_core/__init__.py"]    # found before there is a finder
OURS = re.compile(r'^OURS = "[^"\n]*"', re.MULTILINE)

# The shell has already found an interpreter, maybe one that cannot read the rest: so this
# file alone is written for any Python there is.
MAIN = '''\
import sys

if sys.version_info < (3, 8):
    sys.exit("ptyguard: needs Python 3.8 or newer, this is %s (%s)"
             % (sys.version.split()[0], sys.executable))

if __name__ == "__main__":
    import os
    begins_anew = "_PTYGUARD_AGAIN" not in os.environ
    try:
        from ptyguard_core import quick     # with it the byte-code is found
    except Exception:                   # another archive was put in the place of the one that we read
        if not begins_anew or os.name != "posix":
            raise
        os.environ["_PTYGUARD_AGAIN"] = "1"
        os.execv(sys.executable, getattr(sys, "orig_argv", [sys.executable] + sys.argv))
    os.environ.pop("_PTYGUARD_AGAIN", None)
    status = None
    if os.name == "posix":
        status = quick.carry_out(sys.argv[1:], lambda: __import__("ptyguard_posix"),
                                 lambda data: __import__("ptyguard").finish_output(data))
    if status is None:
        from ptyguard import main
        status = main(sys.argv[1:])
    quick.leave(status)
'''

# What other interpreters are asked, and what compiles; of those before 3.8 nothing is heard.
ASK = '''\
import sys
if sys.version_info >= (3, 8) and sys.implementation.cache_tag:
    from importlib.util import MAGIC_NUMBER
    print(sys.implementation.cache_tag + "-" + MAGIC_NUMBER.hex())
'''
COMPILE = '''\
import marshal, os, sys
staging, into, names = sys.argv[1], sys.argv[2], sys.argv[3:]
sys.path.insert(0, staging)
from ptyguard_core import packing
sources = {}
for name in names:
    with open(os.path.join(staging, name), "rb") as file:
        sources[name] = file.read()
# Later formats of PyPy's depend on where objects happen to lie: not the same archive each time.
version = 2 if sys.implementation.name == "pypy" else marshal.version
with open(into, "wb") as file:
    file.write(marshal.dumps(packing.compile_sources(sources, "ptyguard.pyz", version=version), packing.INDEX_VERSION))
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


def compile_beside(staging):
    """Compile what is found beside its source, for this interpreter; the names of the byte-code.

    Hash-based and unchecked: zipimport would compare a time stamp with the
    entry's, which it reads as local time, so that byte-code would be valid in
    one time zone only.  The archive never changes after it was made.
    """
    for name in BESIDE:
        # dfile: the name in tracebacks.  Not the staging path (reproducible), and none that
        # exists beside a checkout: the traceback module then asks the archive for the line.
        py_compile.compile(os.path.join(staging, name), cfile=os.path.join(staging, name + "c"),
                           dfile="ptyguard.pyz/" + name, doraise=True, optimize=0,
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    return [name + "c" for name in BESIDE]


def find_folders(interpreters):
    """{folder: interpreter} of those that can be asked; the first of each kind counts."""
    asked = [(path, run(path, ASK)) for path in interpreters]
    found = {}
    for path, process in asked:
        said = process.communicate()[0].decode("ascii", "replace").strip()
        if process.returncode == 0 and said:
            found.setdefault(said, path)
    return found


def run(path, program, *words):
    command = [path, "-B", "-S", "-s", "-c", program] + list(words)
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        print("zipapp.sh: %s is left out: %s" % (path, error.strerror), file=sys.stderr)
        return run(sys.executable, "raise SystemExit(1)")


def compile_folders(staging, sources, interpreters):
    """{folder: its modules' byte-code}, those of this very interpreter among them."""
    names = [name for name in sources if name not in BESIDE] + ["ptyguard.py"]
    folders = find_folders([sys.executable] + interpreters)
    begun = [(folder, path, run(path, COMPILE, staging, os.path.join(staging, folder), *names))
             for folder, path in sorted(folders.items())]
    compiled = {}
    for folder, path, process in begun:
        said = process.communicate()[1]
        if process.returncode < 0:      # Debian's PyPy crashes now and then
            process = run(path, COMPILE, staging, os.path.join(staging, folder), *names)
            said = process.communicate()[1]
        if process.returncode:
            why = said.decode("utf-8", "replace").strip().split("\n")[-1] or "status %d" % process.returncode
            print("zipapp.sh: no byte-code for %s: %s" % (path, why), file=sys.stderr)
            continue
        with open(os.path.join(staging, folder), "rb") as file:
            compiled[folder] = marshal.load(file)
    return compiled


def write_archive(path, staging, names, folders):
    from ptyguard_core import packing
    with open(path, "wb") as file:
        file.write(SHEBANG)
        with zipfile.ZipFile(file, "w") as archive:
            for name in sorted(names):
                with open(os.path.join(staging, name), "rb") as source:
                    packing.add_entry(archive, name, source.read(), is_stored=name.endswith(".pyc"))
            for folder, records in sorted(folders.items()):
                packing.add_folder(archive, folder, records, packing.QUICK)
        file.flush()
        os.fsync(file.fileno())     # before the rename, or a power cut leaves an empty file
    os.chmod(path, 0o755)


def build(root, staging, path, described, interpreters):
    try:
        sources = stage_sources(root, staging)
        version = choose_version(root, staging, described)
        stamp_version(staging, version)
        folders = compile_folders(staging, sources, interpreters.split("\n") if interpreters else [])
        write_archive(path, staging, sources + compile_beside(staging), folders)
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
# (With that policy the version is told the way that loads most, not the quick one.)
if ! said=$(PTYGUARD_AUTO_UPGRADE=never PTYGUARD_DIR=$staging/state \
    "$PYTHON" -I "$unfinished" --version </dev/null); then
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
