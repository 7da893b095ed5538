"""Start-up: byte-code for every interpreter in one archive, and what each verb loads.

Times cannot be asserted.  What costs them can: docs/STARTUP.md has a table of the modules that a
verb loads, and this holds it.
"""

import fcntl
import glob
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from ptyguard_core import packing
from world import MEMORY, ROOT, World, wait_until

PAGE = os.path.join(ROOT, "docs", "STARTUP.md")
NAMES = ["python3"] + [f"python3.{minor}" for minor in range(8, 16)] + ["pypy3"]

ASK = ("import sys; from importlib.util import MAGIC_NUMBER\n"
       "if sys.version_info >= (3, 8): print(sys.implementation.cache_tag, MAGIC_NUMBER.hex(), sep='-')")


def find_interpreters():
    """{folder: interpreter} of those that are here, as zipapp.sh finds them."""
    found = {packing.folder_of(sys.implementation.cache_tag, importlib.util.MAGIC_NUMBER): sys.executable}
    paths = [shutil.which(name) for name in NAMES]
    for root in {os.environ.get("PYENV_ROOT"), os.path.expanduser("~/.pyenv")} - {None}:
        paths += sorted(glob.glob(f"{root}/versions/*/bin/python3"))
    for path in filter(None, paths):
        asked = subprocess.run([path, "-I", "-S", "-c", ASK], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
        folder = asked.stdout.decode().strip()
        if asked.returncode == 0 and folder:
            found.setdefault(folder, path)
    return found


INTERPRETERS = find_interpreters()
OWN_FOLDER = next(iter(INTERPRETERS))
each_interpreter = pytest.mark.parametrize("folder", sorted(INTERPRETERS))


def build(path, **variables):
    """Build an archive; what the builder said on stderr."""
    env = dict(os.environ, PYTHON=sys.executable, **variables)
    done = subprocess.run(["sh", os.path.join(ROOT, "zipapp.sh"), str(path)], env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    return done.stderr.decode()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("built") / "ptyguard.pyz")
    build(path, PYTHONS="\n".join(INTERPRETERS.values()))
    return path


def ask(interpreter, program, *words, **options):
    """What a program for that interpreter prints."""
    done = subprocess.run([interpreter, "-I", "-S", "-c", program, *words], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, **options)
    assert done.returncode == 0
    return done.stdout.decode()


# -- byte-code ------------------------------------------------------------------------------------

WHERE_FROM = """
import sys
sys.path.insert(0, sys.argv[1])
{before}
import ptyguard_core
from ptyguard_core import usage, version
print(type(usage.__loader__).__name__, usage.__spec__.cached, usage.parse.__code__.co_filename,
      version.compare("1.0.0", "2.0.0"))
"""


@each_interpreter
def test_modules_come_from_the_folder_of_the_interpreter_that_runs(archive, folder):
    said = ask(INTERPRETERS[folder], WHERE_FROM.format(before=""), archive)
    assert said.split() == ["ByteCode", f"{archive}/{folder}/ptyguard_core.usage",
                            "ptyguard.pyz/ptyguard_core/usage.py", "-1"]


@each_interpreter
def test_an_interpreter_without_a_folder_takes_the_sources(archive, folder):
    unknown = "import _frozen_importlib_external\n_frozen_importlib_external.MAGIC_NUMBER = b'none'"
    said = ask(INTERPRETERS[folder], WHERE_FROM.format(before=unknown), archive)
    loader, cached, file, answer = said.split()
    assert (loader, file, answer) == ("zipimporter", f"{archive}/ptyguard_core/usage.py", "-1")
    assert folder not in cached         # what zipimport says here differs by version


@each_interpreter
def test_the_archive_runs(archive, folder):
    with World(under=MEMORY) as world:
        done = subprocess.run([INTERPRETERS[folder], archive, "--version"], env=world.env, stdout=subprocess.PIPE,
                              stdin=subprocess.DEVNULL)
        assert done.returncode == 0 and done.stdout.startswith(b"ptyguard ")


def test_byte_code_that_is_not_where_the_index_says_is_never_loaded(archive, tmp_path):
    damaged = str(tmp_path / "ptyguard.pyz")
    with open(archive, "rb") as file:
        data = file.read()
    lead = b"ptyguard_core.usage\0"
    assert data.count(lead) == len(INTERPRETERS)
    with open(damaged, "wb") as file:
        file.write(data.replace(lead, b"ptyguard_core.usagf\0"))
    said = ask(sys.executable, WHERE_FROM.format(before=""), damaged)
    assert said.split()[0] == "zipimporter"


def test_a_traceback_shows_the_line_of_the_source(archive):
    said = ask(sys.executable, """
import sys, traceback
sys.path.insert(0, sys.argv[1])
import ptyguard_core
from ptyguard_core import version
try:
    version.parse("nonsense")
except version.MalformedVersion:
    frame = traceback.extract_tb(sys.exc_info()[2])[-1]
    print(frame.filename, frame.lineno, frame.line, sep="\\n")
""", archive)
    name, number, line = said.strip().split("\n")
    assert name == "ptyguard.pyz/ptyguard_core/version.py"
    with zipfile.ZipFile(archive) as file:
        lines = file.read("ptyguard_core/version.py").decode().split("\n")
    assert line and lines[int(number) - 1].strip() == line


def test_two_builds_are_the_same_bytes_and_hold_what_was_asked_for(tmp_path):
    one, two = tmp_path / "one.pyz", tmp_path / "two.pyz"
    for path in one, two:
        assert build(path, PYTHONS="") == ""
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as file:
        folders = {name.rpartition("/")[0] for name in file.namelist() if name.endswith("/index")}
    assert folders == {OWN_FOLDER}


def test_an_interpreter_that_cannot_compile_is_left_out_and_named(tmp_path):
    broken = tmp_path / "python3"
    broken.write_text("#!/bin/sh\ncase $* in *print*) echo cpython-30-00000000 ;; "
                      "*) echo no memory >&2; exit 1 ;; esac\n")
    broken.chmod(0o755)
    path = tmp_path / "ptyguard.pyz"
    assert build(path, PYTHONS=str(broken)) == f"zipapp.sh: no byte-code for {broken}: no memory\n"
    with zipfile.ZipFile(path) as file:
        assert not [name for name in file.namelist() if "cpython-30" in name]


# -- what each verb loads -------------------------------------------------------------------------

# As the archive's own `__main__` runs, but for the end: it notes what has been loaded.
RUN_ARCHIVE = """
import os, sys, zipimport
into, archive = sys.argv[1:3]
sys.argv[:] = sys.argv[2:]
sys.path.insert(0, archive)
leave, before = os._exit, set(sys.modules)
def note(status):
    with open(into, "w") as file:
        print(*sorted(set(sys.modules) - before), file=file)
    leave(status)
os._exit = note
exec(zipimport.zipimporter(archive).get_code("__main__"), {"__name__": "__main__", "__builtins__": __builtins__})
"""

RUN_SOURCE = """
import os, sys
into, root = sys.argv[1:3]
sys.path.insert(0, root)
before = set(sys.modules)
from ptyguard import main
status = main(sys.argv[3:])
with open(into, "w") as file:
    print(*sorted(set(sys.modules) - before), file=file)
sys.exit(status)
"""

# In this order, each on what the one before left: the words, and the exit code.
LIFE = (
    (("version",), 0), (("help",), 0),
    (("start", "-n", "s", "--", "cat"), 0), (("ensure", "s", "--", "cat"), 0),
    (("ls",), 0), (("ls", "--json"), 0), (("has", "s"), 0), (("has", "nobody"), 1),
    (("send", "s", "--enter", "hello"), 0), (("key", "s", "Enter"), 0), (("wait", "s", "--for", "hello"), 0),
    (("log", "s"), 0), (("log", "s", "--raw"), 0), (("info", "s"), 0), (("screen", "s"), 0), (("status",), 0),
    (("resize", "s", "90x30"), 0), (("rename", "s", "t"), 0), (("detach", "t"), 0), (("restart", "t"), 0),
    (("kill", "t"), 0), (("wait", "t"), 129), (("rm", "t"), 0), (("prune",), 0), (("run", "--", "true"), 0),
)

# What costs more than all that a quick verb does; measured, docs/STARTUP.md.
HEAVY = {"argparse", "asyncio", "collections", "contextlib", "dataclasses", "enum", "functools", "hashlib",
         "importlib.util", "json", "logging", "pathlib", "re", "selectors", "shutil", "signal", "socket",
         "subprocess", "tempfile", "threading", "typing", "zipfile"}


def read_table():
    """{words of a verb: (rooms, heavy modules)} as docs/STARTUP.md tells it."""
    basis, table = None, {}
    with open(PAGE, encoding="utf-8") as file:
        for line in file.read().partition("\n## What each verb loads\n")[2].split("\n"):
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if not line.startswith("| `") or len(cells) != 3:
                continue
            rooms = set(cells[1].replace("*", "").replace(",", " ").split())
            if "*" in cells[1]:
                rooms |= basis
            if cells[0] == "`*`":
                basis = rooms
                continue
            for words in cells[0].split(", "):
                table[words.strip("`")] = rooms, set(cells[2].replace(",", " ").split())
    return table


def live(run, tmp_path):
    """{words: modules loaded} of a whole life; `run(world, into, words)` runs one verb."""
    loaded = {}
    into = str(tmp_path / "modules")
    with World(under=MEMORY) as world:
        world.run("start", "-n", "first", "--", "sleep", "1000", check=0)
        for words, expected in LIFE:
            done = run(world, into, words)
            assert done.returncode == expected, (words, done)
            with open(into) as file:
                loaded[" ".join(words)] = set(file.read().split())
    return loaded


def rooms_of(modules):
    return {name.rpartition(".")[2] for name in modules if name.startswith("ptyguard")} - {"ptyguard_core"}


def check(loaded, table, without=frozenset()):
    told = {words: table[words] for words in loaded}
    assert {words: rooms_of(modules) for words, modules in loaded.items()} == {
        words: rooms - without for words, (rooms, _) in told.items()}
    if sys.implementation.name == "cpython":    # PyPy's own parts are made of some of them
        too_much = {words: modules & HEAVY - told[words][1] for words, modules in loaded.items()}
        assert not {words: modules for words, modules in too_much.items() if modules}


def test_each_verb_of_the_archive_loads_what_the_page_tells(archive, tmp_path):
    loaded = live(lambda world, into, words: subprocess.run(
        [sys.executable, "-I", "-S", "-c", RUN_ARCHIVE, into, archive, *words], env=world.env,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE), tmp_path)
    table = read_table()
    assert set(table) == set(loaded)
    check(loaded, table)


def test_each_verb_of_the_sources_loads_the_same_but_for_the_quick_way(tmp_path):
    loaded = live(lambda world, into, words: subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", RUN_SOURCE, into, ROOT, *words], env=world.env,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE), tmp_path)
    table = read_table()
    check({words: modules for words, modules in loaded.items() if words.split()[0] not in ("ls", "has", "version")},
          table, without={"quick"})


@each_interpreter
def test_quick_verbs_load_as_little_on_every_interpreter(archive, folder, tmp_path):
    into = str(tmp_path / "modules")
    table = read_table()
    with World(under=MEMORY) as world:
        world.run("start", "-n", "s", "--", "sleep", "1000", check=0)
        for words in (("ls",), ("has", "s"), ("version",)):
            subprocess.run([INTERPRETERS[folder], "-I", "-S", "-c", RUN_ARCHIVE, into, archive, *words],
                           env=world.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
            with open(into) as file:
                modules = set(file.read().split())
            assert rooms_of(modules) == table[" ".join(words)][0]
            if folder.startswith("cpython"):
                assert not modules & HEAVY


# -- the quick way tells the same ----------------------------------------------------------------------

@pytest.mark.parametrize("words", [("ls",), ("ls", "-a"), ("l", "-q"), ("list", "--json", "-a"), ("has", "s"),
                                   ("has", "nobody"), ("version",), ("--version",), ("ls", "-q", "--json"),
                                   ("ls", "x"), ("has",), ("version", "--daemon")])
def test_the_quick_way_prints_and_returns_what_the_ordinary_way_does(archive, words):
    with World(under=MEMORY) as world:
        world.run("start", "-n", "s", "--", "sleep", "1000", check=0)
        world.run("run", "-n", "ended", "--", "false", check=1)
        for environment in world.env, {**world.env, "LC_ALL": "C", "PYTHONUTF8": "0"}:
            said = []
            for more in {}, {"PTYGUARD_AUTO_UPGRADE": "never"}:     # with that no way is short
                done = subprocess.run([sys.executable, archive, *words], env={**environment, **more},
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                said.append((done.returncode, re.sub(rb"\b[0-9]+s\b", b"an age", done.stdout), done.stderr))
            assert said[0] == said[1]


def test_where_no_daemon_runs_the_quick_way_leaves_it_to_the_ordinary_one(archive):
    with World(under=MEMORY, program=[sys.executable, archive]) as world:
        done = world.run("ls")
        assert (done.returncode, done.stdout) == (0, b"")
        assert b"no sessions" in done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="F_SETPIPE_SZ, fcntl(2)")
def test_a_list_that_a_pipe_does_not_take_at_once_is_printed_whole(archive):
    with World(under=MEMORY) as world:
        for number in range(12):        # each takes more than 400 bytes
            world.run("start", "-n", f"s{number}", "--", "sleep", "1000", check=0)
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        fcntl.fcntl(write_end, 1031, 4096)
        writing = subprocess.Popen([sys.executable, archive, "ls", "--json"], env=world.env, stdout=write_end,
                                   stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        os.close(write_end)
        with open(read_end, "rb") as file:
            told = file.read()
        said = writing.communicate(timeout=60)[1]
        assert (writing.returncode, said) == (0, b"")
        assert len(told) > 4096
        assert [session["name"] for session in json.loads(told)["sessions"]] == [f"s{n}" for n in range(12)]


# -- a daemon that follows another -----------------------------------------------------------------

NOTING = f"""
import os, sys
sys.path.insert(0, {ROOT!r})
import ptyguard_posix
from ptyguard_core import daemon
settings = dict(item.split("=", 1) for item in sys.argv[3:])
daemon.LOAD_AFTER_S = 1000.0            # however long it takes until there is something to read
pump = daemon.Session.pump
def noting(self, *args):
    before = self.ring.end_offset
    answer = pump(self, *args)
    path = settings["notes"] + ".%d" % os.getpid()
    if self.ring.end_offset > before and not os.path.exists(path):
        with open(path, "w") as file:
            print(*sys.modules, file=file)
    return answer
daemon.Session.pump = noting
sys.exit(daemon.main(ptyguard_posix, sys.argv[2:], sys.argv[0]))
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="PyPy's own parts are made of some of them")
def test_a_daemon_has_read_on_before_it_loads_what_that_does_not_need():
    with World(under=MEMORY) as world:
        program, notes, go = (os.path.join(world.directory, name) for name in ("noting.py", "modules", "go"))
        with open(program, "w") as file:
            file.write(NOTING)
        with world.guard_with(program, "notes=" + notes), world.connect() as pg:
            pg.start(["sh", "-c", f"until [ -e {go} ]; do sleep 0.05; done; echo output; sleep 1000"], name="s")
            world.kill_daemon()
            pid = wait_until(world.daemon_pid, "a successor")
            with open(go, "w"):
                pass
            wait_until(lambda: os.path.exists(f"{notes}.{pid}") and os.path.getsize(f"{notes}.{pid}"), "its first read")
            with open(f"{notes}.{pid}") as file:
                modules = set(file.read().split())
            assert "ptyguard_core.daemon" in modules
            assert not sorted(modules & (HEAVY - {"collections"}))
            assert not modules & {"ptyguard_core.sweeping", "ptyguard_core.supervise", "ptyguard_core.screen"}
