"""Restore beside tmux: a session attached in a pane of tmux shows there what `screen` says.

A real program has drawn before anybody attaches; the client only watches (-r), so the program
has no reason to paint again: what the pane shows is what was restored.
"""

import os
import shlex
import shutil
import subprocess

import pytest

from world import LIMIT_S, MEMORY, World, wait_until

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")

# Program -> (arguments, keys that are pressed in it, what is on its screen then).
PROGRAMS = {
    "vim": (["-u", "NONE", "--cmd", "set nocompatible shortmess+=I", "{text}"], ["C-f", "j", "i", "new ", "Escape"], "new "),
    "less": (["{text}"], ["Space", "/line 7", "Enter"], "line 7"),
    "htop": (["-d", "3000"], [], "Load average"),
    "mc": (["-u", "-d", "{directory}", "{directory}"], ["Down"], "Quit"),
    "dialog": (["--checklist", "Choose:", "15", "50", "5", "a", "apples", "on", "b", "b\u00e4rries", "off"], ["Down"], "apples"),
    "nano": (["-I", "{text}"], ["C-k", "x"], "Cut"),
    "bash": (["--norc", "--noprofile", "-i"], ["printf '\\033[1;44m%s\\033[m \\u4e16\\n' wide", "Enter"], "wide \u4e16"),
}
SIZE = (90, 24)


@pytest.fixture(scope="module")
def world():
    with World(under=MEMORY, LC_ALL="C.UTF-8") as world:
        yield world


@pytest.fixture(scope="module")
def pg(world):
    with world.connect() as pg:
        yield pg


class Pane:
    """tmux with one pane, in which a command runs."""

    def __init__(self, world, directory, size, *command):
        self._socket = os.path.join(directory, "tmux")
        self._env = dict({key: value for key, value in world.env.items() if key not in ("TMUX", "TMUX_PANE")},
                         LC_ALL="C.UTF-8", TERM="xterm-256color", TMUX_TMPDIR=directory)
        self.do("new-session", "-d", "-x", str(size[0]), "-y", str(size[1]), "exec " + shlex.join(command))

    def do(self, *words):
        done = subprocess.run(["tmux", "-u", "-S", self._socket, "-f", "/dev/null", *words], env=self._env,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=LIMIT_S)
        assert done.returncode == 0, done.stdout
        return done.stdout.decode()

    def look(self):
        """(text, cursor) of the pane."""
        cursor = self.do("display-message", "-p", "#{cursor_x} #{cursor_y}").split()
        text = [line.rstrip() for line in self.do("capture-pane", "-p").split("\n")]
        return "\n".join(text).rstrip("\n"), tuple(map(int, cursor))

    def close(self):
        self.do("kill-server")


def shown(world, name):
    """(text, cursor) as `screen` tells."""
    told = world.json("screen", name)
    text = world.run("screen", name, check=0).stdout.decode()
    return text.rstrip("\n"), (told["cursor"]["x"] + told["cursor"]["wrap_pending"], told["cursor"]["y"])


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_a_program_has_drawn_is_restored_in_tmux(world, pg, tmp_path, program):
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    text = tmp_path / "text"
    text.write_text("".join(f"line {n} of a text with t\u00e4bs\tand \u4e16\u754c\n" for n in range(200)))
    (tmp_path / "an entry").write_text("")
    arguments, keys, sign = PROGRAMS[program]
    argv = [program] + [word.format(text=text, directory=tmp_path) for word in arguments]
    session = pg.start(argv, program, size=SIZE, env=dict(world.env, PS1="$ ", HOME=str(tmp_path), TERM="xterm-256color"))
    session.wait_idle(0.5, LIMIT_S)
    if keys:
        world.run("send-keys", program, *keys, check=0)
    world.run("wait", program, "--screen", sign, "--idle", "1", "--timeout", "60", check=0)
    pane = Pane(world, str(tmp_path), SIZE, *world.program, "attach", "-r", program)
    try:
        wait_until(lambda: pane.look() == shown(world, program),
                   f"{program} as {shown(world, program)} instead of {pane.look()}")
        # And typed at, it goes on as it would have.
        world.run("send-keys", program, "Left", check=0)
        session.wait_idle(0.5, LIMIT_S)
        wait_until(lambda: pane.look() == shown(world, program), f"{program} after a key")
    finally:
        pane.close()
        session.kill()


def test_what_is_printed_as_ansi_makes_the_same_screen_of_a_pane(world, pg, tmp_path):
    line = r"printf '\033[1;3%dmline %d\033[m \342\230\203 \346\274\242\n' $((n %% 8)) $n".replace("%%", "%")
    session = pg.start(["sh", "-c", f"for n in $(seq 100); do {line}; done; printf '\\033[5;7Hhere'; read x"], "ansi",
                       size=SIZE)
    session.wait_for(b"here", LIMIT_S)
    file = tmp_path / "screen"
    file.write_bytes(world.run("screen", "ansi", "--format", "ansi", "--history", "50", check=0).stdout)
    pane = Pane(world, str(tmp_path), SIZE, "sh", "-c", f"stty raw -echo; cat {file}; exec sleep 1000")
    try:
        wait_until(lambda: pane.look() == shown(world, "ansi"), "the same screen")
        assert pane.do("capture-pane", "-p", "-S", "-").split("\n")[:2] == ["line 28 \u2603 \u6f22", "line 29 \u2603 \u6f22"]
    finally:
        pane.close()
        session.kill()
