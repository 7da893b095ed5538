"""What all tests share: a directory of its own for each, waiting, and hypothesis without a clock."""

import os
import pathlib
import re
import sys
import tempfile
import time

import pytest
from hypothesis import settings

# `pytest` alone finds the house too, not only `python -m pytest` at its door.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# A busy machine is slow, not wrong.  HYPOTHESIS_PROFILE=thorough looks longer.
settings.register_profile("quick", deadline=None, max_examples=50)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

LIMIT_S = 60        # for facts that take milliseconds


@pytest.fixture(autouse=True)
def own_directory(monkeypatch):
    """PTYGUARD_DIR of this test alone; nothing of the caller's own session leads elsewhere.

    Not in tmp_path: below that, sockets would have paths too long and be put elsewhere.
    """
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as above:
        directory = pathlib.Path(above, "dir")
        monkeypatch.setenv("PTYGUARD_DIR", str(directory))
        for name in ("PTYGUARD_SESSION", "PTYGUARD_SESSION_ID", "PTYGUARD_DEV",
                     "PTYGUARD_TEST_VERSION"):
            monkeypatch.delenv(name, raising=False)
        yield directory


@pytest.fixture(scope="module")
def world():
    """One world for all tests of a file: guard and daemon are started once."""
    from world import MEMORY, World
    with World(under=MEMORY) as made:
        yield made


@pytest.fixture(scope="module")
def pg(world):
    """The Python API on that world."""
    with world.connect() as client:
        yield client


@pytest.fixture(params=["direct", "framed"])
def both_ways(request, world):
    """Each test of a file twice: terminals lent to the daemon, and bytes through the connection."""
    world.env["PTYGUARD_DIRECT"] = "0" if request.param == "framed" else "1"
    yield request.param
    del world.env["PTYGUARD_DIRECT"]


@pytest.fixture
def name(request):
    """A session name that no other test uses."""
    return re.sub("[^A-Za-z0-9]", "", request.node.name)[-58:] + "." + os.urandom(2).hex()


@pytest.fixture
def gate(tmp_path):
    """A FIFO: whoever reads it waits until something is written there."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


@pytest.fixture
def eventually():
    """`eventually(fact)`: the first true answer of `fact()`, which has a generous limit."""
    def wait(fact):
        limit = time.monotonic() + LIMIT_S
        while True:
            answer = fact()
            if answer:
                return answer
            assert time.monotonic() < limit, "this never became true"
            os.sched_yield() if hasattr(os, "sched_yield") else None
    return wait
