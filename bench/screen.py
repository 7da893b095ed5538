#!/usr/bin/env python3
"""Cost of a screen: seconds of processor time for a megabyte of output, fed in 64 KiB pieces.

    bench/screen.py [NAME...]

The captures of tests/captures are repeated until they fill a ring of 1 MiB; plain lines, a
`git log -p` of this repository and some texts in other scripts are made here.  Each is fed three times
and the fastest is told, since whatever else the machine does only makes it slower.
"""

import os
import re
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from ptyguard_core.screen import Screen     # noqa: E402

MEGABYTE = 1 << 20
PIECE = 1 << 16
ROUNDS = 3


def lines(text):
    return (80, 24), text.encode("utf-8") + b"\r\n"


def captures():
    under = os.path.join(ROOT, "tests", "captures")
    for name in sorted(os.listdir(under)):
        match = re.fullmatch(r"(.*)-(\d+)x(\d+)\.bytes", name)
        if match:
            with open(os.path.join(under, name), "rb") as file:
                yield match.group(1), ((int(match.group(2)), int(match.group(3))), file.read())


def git_log():
    done = subprocess.run(["git", "-C", ROOT, "log", "-p", "--color=always", "-n", "400"], stdout=subprocess.PIPE)
    return (120, 40), done.stdout[:MEGABYTE].replace(b"\n", b"\r\n") or b"no git\r\n"


def cost(size, data):
    data = (data * (MEGABYTE // len(data) + 1))[:MEGABYTE]
    seconds = []
    for _ in range(ROUNDS):
        screen = Screen(size)
        begun = time.process_time()
        for start in range(0, MEGABYTE, PIECE):
            screen.feed(data[start:start + PIECE])
        seconds.append(time.process_time() - begun)
    return min(seconds)


def main(names):
    subjects = dict(captures(), plain=lines("The quick brown fox jumps over the lazy dog, and then over another dog."),
                    latin=lines("Grüße, naïve façade: “all right”."), cjk=lines("漢字かな" * 10),
                    emoji=lines("\u2764\ufe0f \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f680"),
                    short=lines("ok"), log=git_log())
    for name in names or subjects:
        print("%-10s %.3f s" % (name, cost(*subjects[name])))


if __name__ == "__main__":
    main(sys.argv[1:])
