"""The archive, built once, and directories to use it in.

Only what a user has takes part here: the file, a shell, terminals.  No test imports
anything of ptyguard's.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import pytest

from outside import Ptyguard

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture(scope="session")
def archive():
    """ptyguard.pyz as `sh zipapp.sh` builds it; beside it the command `ptyguard`, for shell lines.

    In a directory that other users may enter.  BLACKBOX_ARCHIVE names another one to be tested.
    """
    above = tempfile.mkdtemp(prefix="pgbb-built-")
    try:
        os.chmod(above, 0o755)
        path = os.path.join(above, "ptyguard.pyz")
        if os.environ.get("BLACKBOX_ARCHIVE"):
            shutil.copy(os.environ["BLACKBOX_ARCHIVE"], path)
        else:
            subprocess.run(["sh", os.path.join(ROOT, "zipapp.sh"), path], check=True,
                           env=dict(os.environ, PYTHON=sys.executable, PYTHONS=""), stdout=subprocess.DEVNULL)
        script = os.path.join(above, "ptyguard")
        with open(script, "w") as file:
            file.write(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {path} "$@"\n')
        os.chmod(script, 0o755)
        yield path
    finally:
        shutil.rmtree(above, ignore_errors=True)


@pytest.fixture(scope="module")
def pg(archive):
    """A directory for all tests of a file, each with session names of its own."""
    with Ptyguard(archive) as made:
        yield made


@pytest.fixture
def fresh(archive):
    """A directory for one test, in which nothing runs yet."""
    with Ptyguard(archive) as made:
        yield made


@pytest.fixture
def name(request):
    """A session name that no other test uses."""
    words = re.sub("[^a-z0-9]+", "-", request.node.name.lower())
    return words[:40].strip("-") + "." + os.urandom(2).hex()


@pytest.fixture
def own_directory():
    """Nothing: this suite gives its directories to the processes, not to pytest's own."""
