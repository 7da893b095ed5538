"""The modules that a real guard loads in a whole life: whatever it knew could make it fail.

The list below is the promise.  A module that is to be added to it is to be argued for.
"""

import os
import subprocess

import pytest

import ptyguard_posix as backend
from ptyguard_core.copies import find_program
from world import MEMORY, World

OURS = {"ptyguard", "ptyguard_posix", "ptyguard_core"} | {
    "ptyguard_core." + name for name in (
        "backend", "circuit", "depositing", "errors", "foreign", "guard", "guardwire", "holdings",
        "journal", "link", "loop", "reexec", "ring", "spawning", "updates",
        "version")}

# Of the standard library, beside what a bare `python -I -S` has loaded: system calls, and
# what `socket`, `signal` and `struct` are made of.
STANDARD = {
    "fcntl", "heapq", "mmap", "os", "resource", "select", "signal", "socket", "stat", "struct",
    "termios", "time", "zipimport", "zlib",
    "array", "collections", "collections.abc", "enum", "errno", "functools", "genericpath", "io",
    "itertools", "keyword", "math", "operator", "os.path", "posixpath", "pwd", "reprlib",
    "selectors", "types",
}

# What must never be among them, should the list above grow by mistake.
NEVER = {"argparse", "asyncio", "dataclasses", "json", "logging", "pathlib", "re", "subprocess",
         "tempfile", "threading", "typing", "ptyguard_core.frames", "ptyguard_core.registry",
         "ptyguard_core.client", "ptyguard_core.daemon", "ptyguard_core.session",
         "ptyguard_core.terminal"}

_BARE = "import sys; print(*sorted(sys.modules))"

# The guard's own command line, and after its end what it has loaded.
_LIFE = """
import sys
binary, into, root = sys.argv[1:]
sys.path.insert(0, binary)
sys.argv[:] = [binary, "__guard", root]
from ptyguard import main
status = main(sys.argv[1:])
with open(into, "w") as file:
    print(*sorted(sys.modules), file=file)
sys.exit(status)
"""


def without_private(names):
    """Those names that are not an implementation's own parts (`cpyext` is PyPy's)."""
    return {name for name in names
            if not name.startswith(("_", "encodings", "importlib")) and name != "cpyext"}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The modules that a guard had at its end, beside those that every Python has."""
    into = str(tmp_path_factory.mktemp("closure") / "modules")
    with World(under=MEMORY) as world:
        interpreter, binary = find_program(backend, world.paths)
        report, theirs = os.pipe()
        pid = backend.launch([interpreter, "-I", "-S", "-c", _LIFE, binary, into,
                              world.paths.root], {"PATH": os.defpath}, (theirs,),
                             world.paths.guard_log, detach=False)
        os.close(theirs)
        with open(report, "rb") as file:
            assert file.read() == b"ready"
        # A life: sessions that start, fail to, end, are killed; a daemon that dies and one
        # that is replaced; sockets that vanish; words that are not understood.
        world.run("run", "--", "true", check=0)
        world.run("run", "--", "/no/such/program", check=127)
        world.run("start", "-n", "s", "--", "sleep", "1000", check=0)
        world.kill_daemon()
        world.run("daemon", "restart", check=0)
        os.unlink(world.paths.client_socket)
        world.run("ls", check=0)
        world.run("daemon", "stop", "--sessions", "kill", check=0)
        assert os.waitpid(pid, 0)[1] == 0
    with open(into) as file:
        everything = set(file.read().split())
    bare = subprocess.run([interpreter, "-I", "-S", "-c", _BARE], stdout=subprocess.PIPE,
                          check=True).stdout.decode().split()
    return everything - set(bare)


def test_a_guard_loads_of_our_own_modules_only_those_it_is_made_of(loaded):
    assert {name for name in loaded if name.startswith("ptyguard")} == OURS


def test_a_guard_loads_of_the_standard_library_only_what_is_listed(loaded):
    others = without_private(loaded) - OURS
    assert others - STANDARD == set()


def test_a_guard_never_loads_what_parses_words_or_starts_threads(loaded):
    assert loaded & NEVER == set()
    assert not (STANDARD | OURS) & NEVER
