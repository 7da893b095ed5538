"""Make the captures of this directory anew: what real programs write, as recorded by ptyguard.

    python tests/captures/make.py [NAME...]

Each runs in a session of a world of its own, is sent keys, and what it has written until then
is kept as NAME-COLSxROWS.bytes.  They are data for tests, so nothing of the machine goes into them:
programs see files made here only, a home of their own, and no process but one.
"""

import os
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from world import MEMORY, World      # noqa: E402  (not to be found before that)

IDLE_S = 0.7        # a program that writes nothing for so long has finished its picture

SOURCE = """#include <stdio.h>

/* Some text in other scripts: Grüße, naïve, Ελληνικά, кириллица, 漢字, かな, 한글. */
int main(void) {
\tint unused = 1;
\tfor (int n = 0; n < 10; n++)
\t\tprintf("%s\\n", n);
\treturn 0;
}
"""

LINES = "".join(f"line {n}: " + "word " * (n % 23) + ("漢字 " if n % 7 == 0 else "") + "\n" for n in range(300))

BUILD = r"""
for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    printf '\r\033[K[%3d%%] \033[32mBuilding C object src/CMakeFiles/demo.dir/file%d.c.o\033[0m' $((n * 5)) $n
done
echo
for n in 1 2 3 4 5 6; do gcc -std=gnu99 -Wall -Wextra -fdiagnostics-color=always -c source.c -o source$n.o; done
printf '\033[1;32mdone\033[0m, \033[38;5;208m6 warnings\033[0m, \033[38;2;90;160;250m0 errors\033[0m\n'
"""

HISTORY = r"""
git init -q -b main . && for n in 1 2 3 4 5; do
    echo $n >> file && git add file && git commit -q -m "Change number $n: a subject line" -m "And a body, too."
done
git checkout -q -b topic HEAD~2 && echo x > other && git add other && git commit -q -m 'On a branch'
git checkout -q main && git merge -q --no-edit topic
git --no-pager log --color=always --graph --stat --decorate
"""

# name: (columns, rows, argv, keys that are sent one after the other when it is quiet)
CAPTURES = {
    "vim": (80, 24, ["vim", "-u", "NONE", "-N", "-n", "--cmd", "set nu hls laststatus=2 t_Co=256",
                     "-c", "syntax on", "source.c"],
            [b"/int\r", b"oint added; // \xe6\xbc\xa2\xe5\xad\x97\x1b", b"ggdd", b":split\r", b"\x06", b"Vjj"]),
    "vim-left": (80, 24, ["sh", "-c", "echo before; vim -u NONE -N -n source.c; echo after"], [b"ihello\x1b",
    b":q!\r"]),
    "less": (80, 24, ["less", "-R", "lines"], [b" ", b"b", b"/line 120\r", b"jjjkk", b"G", b"\x1b[A", b"-S\r",
    b"100g"]),
    "htop": (100, 30, ["sh", "-c", "exec htop -d 20 -p $$"], [b"", b"\x1bOB", b"t"]),
    "mc": (80, 24, ["mc", "-u", "--nosubshell", ".", "."], [b"", b"\x1bOB\x1bOB", b"\x1b9", b"\x1bOB\x1bOB"]),
    "dialog": (70, 20, ["dialog", "--colors", "--title", "A title", "--menu", "\\Z1Choose\\Zn one of these", "15",
    "50",
                        "5", "1", "first", "2", "second", "3", "漢字", "4", "Grüße", "5", "fifth", "6", "sixth"],
               [b"", b"\x1bOB", b"\x1bOB", b"\t"]),
    "bash": (60, 15, ["bash", "--norc", "--noprofile", "-i"],
             [b"ls -l --color=always --time-style=+ | cut -c1-40\r",
              b"echo a very long line that does not fit into the width of this terminal at all, so it wraps\r",
              b"seq 30 | tr '\\n' ' '\r", b"\x01echo half a line \x05\x7f\x7f\x1bbmore \x1b[D\x1b[D\x1b[D#", b"\r",
              b"\x12seq", b"\x1b[C",
              b"\x15printf '\\033[4;5H%s\\033[K\\033[9;1H' there\r"]),
    "build": (90, 25, ["sh", "-c", BUILD], []),
    "git": (80, 24, ["sh", "-c", HISTORY], []),
}

ENVIRONMENT = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"],
               "PS1": "\\[\\e]0;\\w\\a\\e[1;32m\\]user@host\\[\\e[0m\\]:\\[\\e[34m\\]\\w\\[\\e[0m\\]$ ", "LESS": "",
               "LESSHISTFILE": "-", "HISTFILE": "", "GIT_CONFIG_NOSYSTEM": "1", "GIT_PAGER": "cat",
               "GIT_AUTHOR_NAME": "A U Thor", "GIT_AUTHOR_EMAIL": "author@example.org",
               "GIT_COMMITTER_NAME": "A U Thor", "GIT_COMMITTER_EMAIL": "author@example.org",
               "GIT_AUTHOR_DATE": "2024-01-02T03:04:05Z", "GIT_COMMITTER_DATE": "2024-01-02T03:04:05Z"}


def capture(pg, name, place):
    """Run one program in `place`; return all that it has written when the last key has had its effect."""
    cols, rows, argv, keys = CAPTURES[name]
    session = pg.start(argv,
    "capture-" + name, size=(cols, rows), cwd=str(place), env=dict(ENVIRONMENT, HOME=str(place)))
    session.wait_idle(IDLE_S, 60)
    for key in keys:
        if key:
            session.send(key)
        session.wait_idle(IDLE_S, 60)
    _, data = session.read()
    if session.is_living:
        session.kill()
    return data


def main(names):
    with World(under=MEMORY) as world, world.connect() as pg:
        for name in names or CAPTURES:
            with tempfile.TemporaryDirectory(prefix="capture-", dir="/tmp") as place:
                place = pathlib.Path(place)
                for file, text in (("source.c", SOURCE), ("lines", LINES)):
                    (place / file).write_text(text, encoding="utf-8")
                data = capture(pg, name, place)
            cols, rows = CAPTURES[name][:2]
            (HERE / f"{name}-{cols}x{rows}.bytes").write_bytes(data)
            print(f"{name}: {len(data)} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
