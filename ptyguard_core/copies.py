"""Copies: the private copies of the program that guard and daemon run from.

Never from the user's copy: overwriting a running archive breaks every later import
from it.  A copy lies in the state directory, is named by version and content, never
rewritten, has the byte-code of the interpreter that made it, and is held with a shared
lock by whoever runs from it.

An archive that is not ours (`upgrade --to FILE`) is read once and checked; what is tried
and used is the copy, so that nobody can exchange it in between.
"""

import os
import stat
import sys

from .errors import PtyguardError, StateUnusable, Unreachable
from .version import OURS, TEXT_MAX, MalformedVersion, parse

ARCHIVE_MAX = 64 << 20         # bytes, packed and unpacked; ours has one
TRIAL_LIMIT_S = 20.0           # for an interpreter to say the version

_ROOT_MODULES = ("ptyguard.py", "ptyguard_posix.py", "ptyguard_win.py")
_NEEDED = {*_ROOT_MODULES[:2], "ptyguard_core/version.py", "ptyguard_core/guard.py",
           "ptyguard_core/daemon.py"}
_MODULE = r"(ptyguard[a-z_]*|ptyguard_core/[a-z_][a-z0-9_]*)\.py"
_FINDER = "ptyguard_core/bytecode.py"
_BESIDE = {"__main__.py", "ptyguard_core/__init__.py"}      # zipimport finds them, before there is a finder
_VERSION_LINE = b'OURS = "'
# The package first: with it byte-code is found.
_MAIN = b"import sys\nimport ptyguard_core\nfrom ptyguard import main\nsys.exit(main(sys.argv[1:]))\n"


def find_program(backend, paths):
    """(interpreter, private copy) of this very code that work together, tried before use."""
    return _find_interpreter(backend, make_copy(backend, paths))


def _find_interpreter(backend, binary):
    tried = []
    for interpreter in _interpreters():
        if interpreter in tried:
            continue
        tried.append(interpreter)
        if backend.try_program([interpreter, "-I", "-S", binary, "--version"], TRIAL_LIMIT_S):
            return interpreter, binary
    raise Unreachable("no usable python3: tried " + ", ".join(tried),
                      hint="install python3, 3.8 or newer")


def _interpreters():
    # The base executable: a virtual environment may be gone tomorrow.
    yield getattr(sys, "_base_executable", None) or sys.executable
    yield sys.executable
    yield "/usr/bin/python3"
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        candidate = os.path.join(directory or ".", "python3")
        if os.access(candidate, os.X_OK):
            yield os.path.abspath(candidate)


def own_command():
    """The words that run this very program, as absolute paths: interpreter and file."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    is_archive = not os.path.isdir(root)
    return [next(_interpreters()), root if is_archive else os.path.join(root, _ROOT_MODULES[0])]


def is_checkout():
    """Whether we run from source files, not from an archive."""
    return os.path.isdir(os.path.dirname(os.path.abspath(__file__)))


def read_sources():
    """Our own modules' sources by archive name, from a directory or an archive."""
    package = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(package)
    if os.path.isdir(package):
        names = list(_ROOT_MODULES) + ["ptyguard_core/" + name for name in os.listdir(package)
                                       if name.endswith(".py")]
        sources = {}
        for name in names:
            with open(os.path.join(root, name), "rb") as file:
                sources[name] = file.read()
        return sources
    import zipfile
    with zipfile.ZipFile(root) as archive:
        return {name: archive.read(name) for name in archive.namelist()
                if name.endswith(".py") and name != "__main__.py"}


def make_copy(backend, paths):
    """The path of the private copy of this very code; made once, never rewritten."""
    copy, sources = name_copy(paths)
    _make(backend, paths, copy, sources, _main_of(OURS, sources))
    return copy


def _make(backend, paths, copy, sources, main):
    import importlib.util
    try:
        os.makedirs(paths.copies, mode=0o700, exist_ok=True)
        backend.check_private(paths.copies)
        if _is_whole(copy, sources):
            os.utime(copy)              # used just now: whoever sweeps old ones leaves it alone
            return
    except FileNotFoundError:
        pass                            # swept this very moment: made again
    except OSError as error:
        raise StateUnusable(f"cannot use {paths.copies}: {error.strerror}", errno=error.errno,
                            hint="check the owner and mode of that directory") from None
    _write_copy(copy, dict(sources, **{"__main__.py": main}), importlib.util.MAGIC_NUMBER)


def _main_of(version, sources):
    """What a copy begins with.  One made under a version that is not its sources' own, for
    a test, says that version too; otherwise each would take the other for outdated."""
    if version_of(sources) == version:
        return _MAIN
    return b"import os\nos.environ['PTYGUARD_TEST_VERSION'] = %a\n" % version + _MAIN


def version_of(sources):
    """The version that a program's sources name, or None."""
    for line in sources.get("ptyguard_core/version.py", b"").split(b"\n"):
        if line.startswith(_VERSION_LINE):
            return line.split(b'"')[1].decode("ascii", "replace")
    return None


def name_copy(paths):
    """(the path that the private copy of this very code has or would have, its sources)."""
    try:
        sources = read_sources()
    except (OSError, KeyError) as error:
        raise StateUnusable(f"our own source cannot be read: {error}",
                            hint="was the archive moved while it ran? run it again") from None
    return _name(paths, OURS, sources), sources


def _name(paths, version, sources):
    import hashlib
    import importlib.util
    digest = hashlib.sha256(importlib.util.MAGIC_NUMBER)
    for name in sorted(sources):
        digest.update(name.encode() + b"\0" + sources[name])
    return os.path.join(paths.copies, f"ptyguard-{version}-{digest.hexdigest()[:16]}.pyz")


def _is_whole(copy, sources):
    """Whether the copy is there and as it was written: a disk that was full, a careless
    hand.  Replaced by rename, it hurts nobody who runs from it."""
    import zipfile
    try:
        if not stat.S_ISREG(os.lstat(copy).st_mode):
            return False                # a FIFO, which would be waited at
        with zipfile.ZipFile(copy) as archive:
            return archive.testzip() is None and set(sources) <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError):
        return False


def _byte_code(copy, name, source, magic):
    """As PEP 552 has it, with an unchecked hash: zipimport does not ask for the source's time."""
    import importlib.util
    import marshal
    # Without docstrings: half the size, in every guard and daemon.
    code = compile(source, f"{os.path.basename(copy)}/{name}", "exec", dont_inherit=True, optimize=2)
    return magic + b"\1\0\0\0" + importlib.util.source_hash(source) + marshal.dumps(code)


def _write_copy(copy, sources, magic):
    import zipfile
    from . import packing
    is_packed = _FINDER in sources      # an older program finds byte-code only beside its sources
    draft = f"{copy}.tmp-{os.urandom(6).hex()}"
    try:
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                for name in sorted(sources):
                    archive.writestr(name, sources[name])
                    if not is_packed or name in _BESIDE:
                        archive.writestr(name + "c", _byte_code(copy, name, sources[name], magic))
                if is_packed:
                    tag = packing.folder_of(sys.implementation.cache_tag, magic)
                    modules = {name: sources[name] for name in sources.keys() - _BESIDE}
                    packing.add_folder(archive, tag, packing.compile_sources(modules, os.path.basename(copy)))
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, copy)
    except (OSError, SyntaxError, ValueError) as error:
        try:
            os.unlink(draft)
        except OSError:
            pass
        if not isinstance(error, OSError):
            raise
        raise StateUnusable(f"cannot write {copy}: {error.strerror}",
                            hint="free some space, or set PTYGUARD_DIR elsewhere",
                            errno=error.errno) from None


# -- an archive that somebody names --------------------------------------------------------

def adopt_file(backend, paths, path):
    """(interpreter, private copy, version) of the ptyguard archive at `path`.

    Raises PtyguardError for one that is not to be trusted or does not work.
    """
    sources = _read_archive(backend, path)
    version = version_of(sources)
    try:
        parse(version or "")
        if len(version) > TEXT_MAX:
            raise MalformedVersion("too long")
    except MalformedVersion:
        raise _useless(path, "it names no version") from None
    copy = _name(paths, version, sources)
    try:
        _make(backend, paths, copy, sources, _MAIN)
    except (SyntaxError, ValueError) as error:
        raise _useless(path, f"this Python cannot compile it: {error}") from None
    try:
        interpreter, binary = _find_interpreter(backend, copy)
    except Unreachable:
        raise _useless(path, "it does not even tell its version") from None
    return interpreter, binary, version


def _read_archive(backend, path):
    """The sources by name, from a file that only its owner, we or root, can write."""
    import zipfile
    import zlib
    try:
        # Opening a FIFO must not wait for its writer (open(2)).
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            _check_owner(backend, path, os.fstat(fd))
            with zipfile.ZipFile(file) as archive:
                return _read_modules(path, archive)
    except OSError as error:
        raise PtyguardError(f"cannot read {path}: {error.strerror or error}",
                            hint="the daemon serves on as before") from None
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, ValueError,
            EOFError) as error:
        raise _useless(path, f"it is no whole archive ({error})") from None


def _check_owner(backend, path, facts):
    if not stat.S_ISREG(facts.st_mode):
        raise _useless(path, "it is no file")
    if facts.st_size > ARCHIVE_MAX:
        raise _useless(path, f"it has {facts.st_size} bytes")
    if facts.st_uid not in (backend.user_id(), 0):
        raise PtyguardError(f"{path} belongs to uid {facts.st_uid}, not to us or root",
                            hint="take a copy of your own, if you trust it")
    if facts.st_mode & 0o022:
        raise PtyguardError(f"{path} can be written by others than its owner",
                            hint=f"chmod go-w {path}, if you trust what it is now")


def _read_modules(path, archive):
    import re
    entries = [entry for entry in archive.infolist() if re.fullmatch(_MODULE, entry.filename)]
    if not _NEEDED <= {entry.filename for entry in entries}:
        raise _useless(path, "it is another program's archive")
    if sum(entry.file_size for entry in entries) > ARCHIVE_MAX:
        raise _useless(path, "it unpacks to too much")
    return {entry.filename: archive.read(entry) for entry in entries}


def _useless(path, why):
    return PtyguardError(f"{path} is not a ptyguard that can be used: {why}",
                         hint="the daemon serves on as before")
