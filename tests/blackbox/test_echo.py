"""What is typed arrives, and what is printed is seen: byte for byte, from the first prompt on."""

import os

from outside import DETACH

EVERY_BYTE = bytes(range(256))
MIRROR = "stty raw -echo; echo ready; exec cat"         # gives back what it gets, unchanged


# Words of `start` for an interactive shell that asks with "prompt> ".
SHELL = ["--env", "PS1=prompt> ", "--unset", "ENV", "--", "sh", "-i"]


def test_what_is_typed_is_echoed_and_answered(pg, name):
    pg.run("start", "-n", name, "--", "cat", code=0)
    terminal = pg.attach(name)
    terminal.type(b"hello\n")
    terminal.expect(rb"hello\r\nhello\r\n")             # the terminal's echo, and cat
    terminal.detach()


def test_a_new_shell_shows_its_prompt_without_being_asked(pg, name):
    terminal = pg.attach(name, "--create", "--", "env", "PS1=prompt> ", "ENV=", "sh", "-i")
    terminal.expect(rb"prompt> ")
    terminal.detach()


def test_a_shell_that_was_started_unseen_shows_its_prompt_to_who_comes(pg, name):
    pg.run("start", "-n", name, *SHELL, code=0)
    pg.run("wait", name, "--for", "prompt> ", code=0)
    terminal = pg.attach(name)
    terminal.expect(rb"prompt>")
    terminal.type(b"echo $((6 * 7))\n")
    terminal.expect(rb"\n42\r\nprompt> ")
    terminal.detach()


def test_who_comes_and_goes_three_times_finds_the_same_shell(pg, name):
    pg.run("start", "-n", name, *SHELL, code=0)
    for bounce in range(3):
        terminal = pg.attach(name)
        terminal.expect(rb"prompt>")
        terminal.type(b"echo $$ has been here $((n += 1)) times\n")
        pid = terminal.expect(rb"(\d+) has been here %d times\r\n" % (bounce + 1)).group(1)
        terminal.detach()
        assert pg.sessions()[name]["pid"] == int(pid)


def test_a_byte_0xff_is_typed_like_any_other(pg, name):
    pg.start(name, MIRROR)
    terminal = pg.attach(name)
    terminal.expect(rb"ready")
    terminal.type(b"\xff")
    terminal.expect_bytes(b"\xff")
    terminal.type(b"<\xff\xff>")
    terminal.expect_bytes(b"<\xff\xff>")
    terminal.detach()
    assert pg.log(name).endswith(b"\xff<\xff\xff>")


def test_every_byte_goes_through_a_terminal_both_ways(pg, name):
    pg.start(name, MIRROR)
    terminal = pg.attach(name, "-e", "none")
    terminal.expect(rb"ready")
    for byte in EVERY_BYTE:                             # alone, as a key is
        terminal.type(bytes([byte]))
        terminal.expect_bytes(bytes([byte]))
    terminal.type(EVERY_BYTE * 3)
    terminal.expect_bytes(EVERY_BYTE * 3)
    pg.run("detach", name, code=0)
    assert terminal.wait() == 0


def test_every_byte_is_sent_and_logged(pg, name):
    pg.start(name, MIRROR)
    pg.run("send", name, "-", input=EVERY_BYTE, code=0)
    pg.run("send", name, "--", os.fsdecode(EVERY_BYTE[1:]), code=0)     # no argument holds a NUL
    pg.run("send", name, "END", code=0)
    pg.run("wait", name, "--raw", "--for", "END", code=0)
    assert pg.log(name).partition(b"\n")[2] == EVERY_BYTE + EVERY_BYTE[1:] + b"END"


def test_every_byte_goes_through_pipes_both_ways(pg):
    program = "stty raw -echo; echo ready; head -c 512"
    client = pg.popen("run", "--", "sh", "-c", program, stdin=-1, stdout=-1)
    head = b""
    while not head.endswith(b"ready\n"):                # before that, keys are the terminal's
        byte = client.stdout.read(1)
        assert byte, head
        head += byte
    output, _ = client.communicate(EVERY_BYTE * 2)      # the detach key is among them
    assert output == EVERY_BYTE * 2
    assert client.returncode == 0


def test_keys_typed_before_the_program_reads_wait_for_it(pg, name, tmp_path):
    os.mkfifo(tmp_path / "gate")
    pg.start(name, f"echo ready; cat '{tmp_path}/gate'; read one; read two; echo \"<$one,$two>\"; cat")
    terminal = pg.attach(name)
    terminal.type(b"first\nsecond\n")
    terminal.expect(rb"first\r\nsecond\r\n")            # echoed; not yet read
    (tmp_path / "gate").write_bytes(b"")
    terminal.expect(rb"<first,second>\r\n")
    terminal.type(DETACH)
    assert terminal.wait() == 0
