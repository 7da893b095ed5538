"""The house: who may import whom, and what must not be in which room.  Read from the source."""

import ast
import functools
import os

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CORE = os.path.join(ROOT, "ptyguard_core")

# file: (floor, what it never imports).  A file imports only from lower floors.
HOUSE = {
    "errors": (0, ""),
    "tables": (0, ""),
    "bytecode": (0, "os"),
    "jsontext": (0, "os"),
    "packing": (1, "os sys"),
    "record": (0, "os time session"),
    "circuit": (0, "time"),
    "liveness": (0, "time"),
    "stall": (0, "time"),
    "backend": (1, "os"),
    "version": (1, "os socket"),
    "ring": (1, "mmap os"),
    "frames": (1, "socket"),
    "guardwire": (1, "frames json"),
    "journal": (1, ""),
    "screen": (1, "os session"),
    "terminal": (0, "os session"),
    "past": (1, "os session"),
    "skipping": (1, "os session time"),
    "replies": (1, "os session time"),
    "queries": (2, "os session time"),
    "answering": (3, "os daemon time"),
    "replay": (2, "os session"),
    "painting": (6, "daemon session socket"),
    "viewing": (5, "daemon session socket"),
    "detachkey": (1, "os"),
    "keys": (1, "os"),
    "shorthand": (1, "os"),
    "statusfile": (1, ""),
    "report": (1, "os sys"),
    "unit": (1, "os sys"),
    "tree": (1, "os"),
    "logfile": (1, ""),
    "canonical": (1, "os"),
    "glyphs": (1, "os"),
    "registry": (1, "socket"),
    "render": (2, "os session"),
    "usage": (2, ""),
    "loop": (2, "threading asyncio"),
    "link": (2, ""),
    "session": (2, "frames socket"),
    "overhearing": (2, "os"),
    "playing": (2, "os session"),
    "export": (3, "os session"),
    "agentlink": (2, "socket"),
    "connection": (4, ""),
    "keywatch": (2, "os time"),
    "mark": (0, "time socket"),
    "direct": (3, "socket daemon"),
    "lending": (1, "os time socket"),
    "verdict": (2, "os socket time"),
    "updates": (2, "os time"),
    "copies": (2, "socket daemon"),
    "reaching": (2, "supervise daemon"),
    "supervise": (3, "daemon"),
    "quick": (3, "channel client supervise usage"),
    "holdings": (1, "os"),
    "foreign": (2, "frames json"),
    "spawning": (2, "frames json"),
    "depositing": (3, "frames json"),
    "reexec": (3, "frames json"),
    "upgrading": (4, "daemon session"),
    "tombstones": (2, "os socket"),
    "reconcile": (2, "os time"),
    "logview": (2, "sys time"),
    "doctor": (2, "os sys time socket"),
    "scope": (3, "time daemon"),
    "completion": (3, "os sys"),
    "guard": (4, "frames registry screen json argparse session"),
    "requests": (4, ""),
    "survey": (4, "daemon client session"),
    "guardlink": (4, "daemon"),
    "logkeeper": (3, "daemon client"),
    "ownership": (3, "daemon client"),
    "restarting": (3, "daemon"),
    "restartpolicy": (1, "os time"),
    "relaunching": (3, "daemon"),
    "sweeping": (3, "daemon"),
    "destroying": (3, "os daemon"),
    "conditions": (3, "os session socket"),
    "channel": (4, "daemon session"),
    "starting": (3, "daemon session socket"),
    "watchers": (2, "os socket time"),
    "listing": (2, "os sys time"),
    "standing": (2, "os session"),
    "daemon": (5, "client argparse"),
    "holder": (5, "daemon session"),
    "recorder": (5, "daemon session"),
    "waiting": (5, "daemon session socket"),
    "sending": (5, "daemon session socket"),
    "prompt": (6, "daemon session socket"),
    "client": (7, "daemon session"),
    "attach": (7, "daemon session"),
    "logwriter": (6, "daemon session"),
    "watching": (6, "daemon session"),
}

# The one boundary worth having: what differs between systems is in the back-ends.
SYSTEM_MODULES = {"fcntl", "termios", "tty", "pty", "msvcrt", "ctypes", "_winapi", "winreg"}
# Too slow or too dangerous (threads before a fork) for a process that has to live.
HEAVY_MODULES = {"asyncio", "threading", "typing", "dataclasses", "logging", "argparse",
                 "subprocess", "concurrent", "multiprocessing"}
GUARD_ROOMS = {"errors", "backend", "circuit", "guardwire", "journal", "link", "loop", "ring",
               "version", "updates", "holdings", "foreign",
               "spawning", "depositing", "reexec", "guard"}
DAEMON_ROOMS = GUARD_ROOMS - {"guard", "circuit", "updates", "reexec", "holdings", "foreign", "spawning",
                               "depositing"} | {
    "copies", "packing", "verdict",
    "frames", "jsontext", "reaching", "terminal", "past", "tables", "screen", "replay", "queries", "replies", "answering", "detachkey", "keywatch", "mark", "direct", "tree", "registry", "session", "connection", "supervise", "requests",
    "guardlink", "agentlink", "restarting", "restartpolicy", "relaunching", "sweeping", "destroying", "tombstones", "reconcile", "canonical",
    "logkeeper", "overhearing", "ownership", "liveness", "watchers", "daemon"}
# supervise and reaching are also the clients' way to a daemon, and may wait there.
LOOP_ROOMS = GUARD_ROOMS | DAEMON_ROOMS - {"supervise", "reaching"}

FILES = sorted(name[:-3] for name in os.listdir(CORE)
               if name.endswith(".py") and name != "__init__.py")
each_file = pytest.mark.parametrize("name", FILES)


@functools.lru_cache(maxsize=None)
def parse(path):
    with open(path, "rb") as file:
        return ast.parse(file.read(), path)


def core(name):
    return parse(os.path.join(CORE, name + ".py"))


@functools.lru_cache(maxsize=None)
def imports(tree):
    """(rooms of the house, other modules) that are imported anywhere in it."""
    rooms, others = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                head, _, rest = alias.name.partition(".")
                (rooms if head == "ptyguard_core" else others).add(
                    rest if head == "ptyguard_core" else head)
        elif isinstance(node, ast.ImportFrom):
            head, _, rest = (node.module or "").partition(".")
            if node.level or head == "ptyguard_core":
                room = node.module if node.level else rest
                rooms |= {room} if room else {alias.name for alias in node.names}
            else:
                others.add(head)
    return rooms, others


def calls(tree):
    """The last name of everything that is called: `x.y.z()` gives z."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Attribute):
                yield function.attr
            elif isinstance(function, ast.Name):
                yield function.id


@each_file
def test_every_file_has_its_floor(name):
    assert name in HOUSE, f"ptyguard_core/{name}.py needs a line in HOUSE"


def test_the_page_tells_the_same_of_the_house():
    with open(os.path.join(ROOT, "docs", "DESIGN.md"), encoding="utf-8") as file:
        rows = [line.strip("| \n").split(" | ") for line in file if line.startswith("| ")]
    told = {row[1][:-3]: (int(row[0]), row[3].replace(",", "") if len(row) > 3 else "")
            for row in rows if row[0].isdigit() and row[1].endswith(".py")}
    assert {name: floor for name, (floor, _) in told.items()} == {
        name: floor for name, (floor, _) in HOUSE.items()}


@each_file
def test_a_file_imports_only_from_lower_floors(name):
    floor, _ = HOUSE[name]
    rooms, _ = imports(core(name))
    assert rooms <= set(HOUSE), "only modules of the house, by name"
    wrong = {room for room in rooms if HOUSE[room][0] >= floor}
    assert not wrong


@each_file
def test_a_file_does_not_import_what_it_never_may(name):
    rooms, others = imports(core(name))
    assert not (rooms | others) & set(HOUSE[name][1].split())


@each_file
def test_the_house_imports_nothing_that_only_one_system_has(name):
    assert not imports(core(name))[1] & SYSTEM_MODULES


@each_file
def test_nothing_but_the_house_and_the_standard_library_is_imported(name):
    others = imports(core(name))[1]
    assert not {module for module in others if module.startswith("ptyguard")}, \
        "the back-end is handed in, the front door stays in front"
    for module in others:
        __import__(module)


@pytest.mark.parametrize("name", sorted((GUARD_ROOMS | DAEMON_ROOMS) & set(FILES)))
def test_guard_and_daemon_are_light_and_have_no_threads(name):
    assert not imports(core(name))[1] & HEAVY_MODULES


@pytest.mark.parametrize("start, rooms", [("guard", GUARD_ROOMS), ("daemon", DAEMON_ROOMS)])
def test_the_rooms_of_guard_and_daemon_are_all_that_they_import(start, rooms):
    found, waiting = set(), [start]
    while waiting:
        room = waiting.pop()
        if room not in found:
            found.add(room)
            waiting += imports(core(room))[0]
    assert found - rooms == set(), "another room: is it fit to be part of it?"


@pytest.mark.parametrize("name", sorted(LOOP_ROOMS & set(FILES)))
def test_the_loop_never_blocks_on_sleep_subprocess_or_name_service(name):
    blocking = {"sleep", "system", "popen", "Popen", "check_output", "getaddrinfo",
                "gethostbyname", "getfqdn", "getpwuid", "getpwnam"}
    found = [call for call in calls(core(name)) if call in blocking]
    # The one exception: a guard whose act failed lets a tenth of a second pass.
    assert found == (["sleep"] if name == "guard" else [])


# --- bytes are bytes --------------------------------------------------------------------

def functions(tree, names):
    found = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
             and node.name in names}
    assert set(found) == set(names), "this test has lost sight of them"
    return list(found.values())


DATA_PATH = [
    ("ptyguard_posix.py", ["read_terminal", "write_terminal", "_read_into", "send_descriptors",
                           "receive_descriptors"]),
    ("ptyguard_core/ring.py", None),
    ("ptyguard_core/connection.py", None),
    ("ptyguard_core/link.py", None),
    ("ptyguard_core/session.py", None),
    ("ptyguard_core/frames.py", ["raw_header", "output_header", "raw_frames", "_take_head", "_begin"]),
    ("ptyguard_core/daemon.py", ["_pump", "_on_terminal"]),
]


@pytest.mark.parametrize("path, names", DATA_PATH)
def test_nothing_is_decoded_on_the_data_path(path, names):
    tree = parse(os.path.join(ROOT, path))
    for part in [tree] if names is None else functions(tree, names):
        assert not {"decode", "b64encode", "b64decode", "hexlify", "dumps"} & set(calls(part))


@pytest.mark.parametrize("name", ["ptyguard_posix", "ptyguard_win"])
def test_a_back_end_knows_the_contract_and_the_errors_only(name):
    assert imports(parse(os.path.join(ROOT, name + ".py")))[0] <= {"backend", "errors"}


def test_only_the_front_door_picks_a_back_end():
    for name in FILES:
        _, others = imports(core(name))
        assert not others & {"ptyguard_posix", "ptyguard_win"}


@each_file
def test_no_module_has_an_exception_handler_for_everything(name):
    bare = [node.lineno for node in ast.walk(core(name))
            if isinstance(node, ast.ExceptHandler) and node.type is None]
    assert not bare


def test_the_source_is_python_3_8():
    for path in [os.path.join(CORE, name + ".py") for name in FILES] \
            + [os.path.join(ROOT, name) for name in os.listdir(ROOT) if name.endswith(".py")]:
        with open(path, "rb") as file:
            ast.parse(file.read(), path, feature_version=(3, 8))
