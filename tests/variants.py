"""Variants: archives of ptyguard that differ from this one in version or behaviour.

They are made of these very sources, so that what a test shows of them is true of what is
built next: a later version, an earlier one, one whose daemon is broken in a certain way.
"""

import os
import re
import zipfile

from ptyguard_core.copies import read_sources

MAIN = b"import sys\nfrom ptyguard import main\nsys.exit(main(sys.argv[1:]))\n"

# Put behind daemon.py: what that daemon does instead of serving.
BROKEN = {
    "crashes at once": "def main(*_):\n    raise SystemExit(9)\n",
    "hangs": "def main(*_):\n    time.sleep(3600)\n",
    "speaks garbage": "def main(*_):\n    os.write(3, b'\\xff' * 5000)\n    time.sleep(3600)\n",
    "closes its link": "def main(*_):\n    os.close(3)\n    time.sleep(3600)\n",
    "dies after ready": (
        "_told = GuardLink._hear_table_end\n"
        "def _then_die(self, message):\n"
        "    _told(self, message)\n"
        "    os._exit(9)\n"
        "GuardLink._hear_table_end = _then_die\n"
        "GuardLink._VERBS[wire.TABLE_END] = _then_die\n"),
    "is killed by what it does when ready": (
        "import signal\n"
        "_told = GuardLink._hear_table_end\n"
        "def _then_die(self, message):\n"
        "    _told(self, message)\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
        "GuardLink._VERBS[wire.TABLE_END] = _then_die\n"),
}
BROKEN_AFTER_GO = {
    "dies at the go": "def _die(self, offers):\n    os._exit(3)\nDaemon.on_go = _die\n",
    "dies once it serves": (
        "_go = Daemon.on_go\n"
        "def _then_die(self, offers):\n"
        "    _go(self, offers)\n"
        "    self.loop.soon(lambda: os._exit(3))\n"
        "Daemon.on_go = _then_die\n"),
    "is deaf once it serves": (
        "_go = Daemon.on_go\n"
        "def _then_sleep(self, offers):\n"
        "    _go(self, offers)\n"
        "    self.loop.soon(lambda: time.sleep(3600))\n"
        "Daemon.on_go = _then_sleep\n"),
}


def make_variant(path, version, *changes, behind=None):
    """An archive at `path` that calls itself `version`.

    `changes`: (module, pattern, text) for re.sub, each to fit once.  `behind`: a dict of
    module -> Python text put at its end.
    """
    sources = read_sources()
    changes += (("ptyguard_core/version.py", r'(?m)^OURS = ".*?"', f'OURS = "{version}"'),)
    for name, pattern, text in changes:
        source, count = re.subn(pattern, lambda _: text, sources[name].decode())
        assert count == 1, (name, pattern, count)
        sources[name] = source.encode()
    for name, text in (behind or {}).items():
        sources[name] += b"\n\n" + text.encode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__main__.py", MAIN)
        for name, source in sources.items():
            archive.writestr(name, source)
    os.chmod(path, 0o755)
    return str(path)


def broken_daemon(path, version, text):
    """An archive whose daemon is broken in that way."""
    return make_variant(path, version, behind={"ptyguard_core/daemon.py": text})
