r"""Leaving: the detach key in all its spellings, whole and in pieces, and what only looks like it.

`Ctrl-\` is one byte to a plain terminal, `CSI 92;5u` to one that speaks kitty's keyboard
protocol, and `CSI 27;5;92~` under xterm's modifyOtherKeys.
"""

import array
import fcntl
import re
import termios

import pytest

from outside import wait_until

MIRROR = "stty raw -echo; echo ready; exec cat"


@pytest.fixture(scope="module")
def mirror(pg):
    """A session that gives back what it gets."""
    pg.start("mirror", MIRROR)
    return "mirror"


def attached(pg, session, *words, **options):
    terminal = pg.attach(session, *words, **options)
    pg.run("send", session, "ready", code=0)            # what is on its screen depends on the test before
    terminal.expect(rb"ready")
    return terminal


def leaves(session, terminal):
    assert terminal.wait() == 0
    assert b"[detached (from session %s)]" % session.encode() in terminal.output


@pytest.mark.parametrize("words, keys", [
    ([], [b"\x1c", b"\x1b[92;5u", b"\x1b[27;5;92~",
          b"\x1b[92;5:1u",                          # kitty, with the kind of event
          b"\x1b[92;133u"]),                        # and with num lock
    (["-e", "C-x"], [b"\x18", b"\x1b[120;5u", b"\x1b[27;5;120~"]),
    (["-e", "C-b d"], [b"\x02d", b"\x1b[98;5ud", b"\x1b[98;5u\x1b[100u", b"\x1b[27;5;98~d"]),
    (["-e", "tmux"], [b"\x02d"]),
    (["-e", "screen"], [b"\x01d"]),
    (["-e", "shpool"], [b"\x00\x11"]),
])
def test_the_key_leaves_in_every_spelling_and_is_not_typed(pg, mirror, words, keys):
    for number, key in enumerate(keys):
        terminal = attached(pg, mirror, *words)
        mark = b"<%s %d>" % (" ".join(words).encode(), number)
        terminal.type(mark + key)
        leaves(mirror, terminal)
        pg.run("wait", mirror, "--raw", "--for", re.escape(mark.decode()) + "$", code=0)
        assert pg.log(mirror).endswith(mark)


@pytest.mark.parametrize("words, pieces", [
    ([], [b"\x1b", b"[92;5u"]),
    ([], [b"\x1b[", b"9", b"2;5", b"u"]),
    ([], [b"\x1b[27;5", b";92~"]),
    (["-e", "C-b d"], [b"\x02", b"d"]),
    (["-e", "C-b d"], [b"\x1b[98", b";5u", b"d"]),
])
def test_the_key_leaves_also_when_it_comes_in_pieces(pg, mirror, words, pieces):
    terminal = attached(pg, mirror, *words)

    def left():
        # More than once: on a busy machine a piece may come so late that the first is Escape.
        for piece in pieces:
            if terminal.process.poll() is None:
                terminal.type(piece)
                # The next is typed when this one has been taken.
                wait_until(lambda: not is_unread(terminal) or terminal.process.poll() is not None)
        terminal.take(0.05)
        return terminal.process.poll() is not None
    wait_until(left, "the client's leaving")
    leaves(mirror, terminal)


def is_unread(terminal):
    """Whether keys wait that the client has not read."""
    waiting = array.array("i", [0])
    fcntl.ioctl(terminal.slave, termios.FIONREAD, waiting)
    return waiting[0] > 0


def test_what_only_begins_like_the_key_is_the_programs(pg, mirror):
    terminal = attached(pg, mirror)
    for keys in (b"\x1b", b"\x1b[", b"\x1b[9", b"\x1b[92;5", b"\x1b[27;5;92",     # and nothing more
                 b"\x1b[92;6u", b"\x1b[92;5x", b"\x1b[92;5~", b"\x1b[93;5u", b"\x1b[27;5;9~",
                 b"\x1b[27;5;920~", b"\x1b[92;5\x1b[A", b"\x1bOA", b"\x1b\x1b", b"\x1d", b"\\"):
        terminal.type(keys)
        terminal.expect_bytes(keys)
        terminal.type(b"|")
        terminal.expect_bytes(b"|")
    terminal.detach()


def test_the_first_key_of_a_chord_and_another_are_the_programs(pg, mirror):
    terminal = attached(pg, mirror, "-e", "C-b d")
    for keys, arriving in ((b"\x02x", b"\x02x"), (b"\x02\x02", b"\x02"), (b"d\x02D", b"d\x02D"),
                           (b"\x1b[98;5ux", b"\x1b[98;5ux"), (b"\x1c", b"\x1c")):
        terminal.type(keys + b"|")
        terminal.expect_bytes(arriving + b"|")
    assert terminal.output.endswith(b"\x02x|\x02|d\x02D|\x1b[98;5ux|\x1c|")
    terminal.type(b"\x02d")
    leaves(mirror, terminal)


def test_a_key_of_the_environment_takes_the_place_of_the_usual_one(pg, mirror):
    terminal = attached(pg, mirror, env=dict(pg.env, PTYGUARD_DETACH_KEY="C-x"))
    terminal.type(b"\x1c")
    terminal.expect_bytes(b"\x1c")
    terminal.type(b"\x18")
    leaves(mirror, terminal)


def test_in_a_pipe_no_byte_is_a_key(pg):
    client = pg.popen("run", "--", "sh", "-c", MIRROR.replace("cat", "head -c 3"), stdin=-1, stdout=-1)
    while not client.stdout.readline().startswith(b"ready"):
        assert client.poll() is None
    output, _ = client.communicate(b"a\x1cb")
    assert (client.returncode, output) == (0, b"a\x1cb")


def test_a_key_that_is_none_is_refused_with_what_would_be_one(pg, mirror):
    for key in ("d", "C-", "C-b d e", "enter"):
        done = pg.run("attach", mirror, "-e", key, code=2)
        assert b"accepted are C-x" in done.stderr
