#!/usr/bin/env python3
"""The benchmark suite: ptyguard beside a bare terminal and every peer that is installed.

    python3 bench/run.py [MEASURE...] [--quick] [--rounds N] [--only CONTENDER]...
                         [--ptyguard [LABEL=]PATH]... [--out DIR]

Without names all measures are run, in some twelve minutes on an idle machine with two processors:

    throughput  echo  scale  crash  upgrade  startup  snapshots

Each prints its tables; the result, its page and its charts go to docs/bench/ (or DIR), where results of other
measures stay as they are. --quick takes tiny amounts, to see that the suite works: its figures mean nothing. It
writes only where --out says, and so does --only, which leaves contenders out.

Without --ptyguard an archive is built of this checkout, as it is installed; each PATH is an archive, a
ptyguard.py or a checkout, and several are measured beside each other. `sh bench/peers.sh` installs the peers.
"""

import argparse
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import contenders
import pages

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MEASURES = ("throughput", "echo", "scale", "crash", "upgrade", "startup", "snapshots")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=", ".join(MEASURES))
    parser.add_argument("--quick", action="store_true", help="tiny amounts, one round")
    parser.add_argument("--rounds", type=int, metavar="N", help="instead of each measure's own number")
    parser.add_argument("--megabytes", type=int, metavar="N", help="throughput: the size of each flood")
    parser.add_argument("--kills", type=int, metavar="N", help="crash: kills of the daemon in all, 300")
    parser.add_argument("--only", action="append", metavar="CONTENDER", help="can be repeated")
    parser.add_argument("--ptyguard", action="append", metavar="[LABEL=]PATH", help="can be repeated")
    parser.add_argument("--out", metavar="DIR", help="where results and pages go")
    options = parser.parse_args()
    for name in options.measures:
        if name not in MEASURES:
            parser.error(f"no measure {name}; there are: {', '.join(MEASURES)}")
    for number in (options.rounds, options.megabytes, options.kills):
        if number is not None and number < 1:
            parser.error("numbers begin with 1")
    if options.quick:
        options.rounds = options.rounds or 1
    return parser, options


def copies(items, scratch):
    """[(label, path)] of the ptyguards to measure."""
    if not items:
        return [("ptyguard", build(scratch))]
    split = [item.rpartition("=") for item in items]
    return [(label or "ptyguard", os.path.abspath(path)) for label, _, path in split]


def build(scratch):
    """An archive of this checkout, in `scratch`; its path."""
    path = os.path.join(scratch, "ptyguard.pyz")
    if not os.path.exists(path):
        subprocess.run(["sh", os.path.join(ROOT, "zipapp.sh"), path], env=dict(os.environ, PYTHON=sys.executable),
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return path


def choose(parser, options, scratch):
    """(contenders to measure, names of the missing)."""
    found, missing = contenders.find(copies(options.ptyguard, scratch))
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        parser.error("each --ptyguard needs a LABEL= of its own")
    for name in options.only or ():
        if name not in names:
            parser.error(f"{name} is not here; there are: {', '.join(names)}")
    return [one for one in found if not options.only or one.name in options.only], missing


def run(names, chosen, missing, options):
    """Yield the result of each measure, as soon as it is there."""
    for name in names:
        module = importlib.import_module(name)
        facts, began, tables = pages.machine(chosen, missing), time.monotonic(), []
        try:
            tables.extend(module.measure(chosen, options))
        finally:                        # what was measured before an interrupt is told
            kept = pages.result(module, tables, facts, time.monotonic() - began)
            print(pages.text_of(kept), flush=True)
        yield kept


def main():
    parser, options = parse_arguments()
    if not os.path.isdir("/proc/self"):
        parser.error("it needs Linux: who uses what is read from /proc")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scratch = tempfile.mkdtemp(prefix="pg-bench-")
    options.build = lambda: build(scratch)
    options.root = ROOT
    directory = options.out or (None if options.quick or options.only else os.path.join(ROOT, "docs", "bench"))
    if directory:
        try:                            # before anything is measured
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            parser.error(f"--out {directory}: {error.strerror}")
    has_failed = False
    try:
        chosen, missing = choose(parser, options, scratch)
        for kept in run(options.measures or MEASURES, chosen, missing, options):
            has_failed = has_failed or any(table["failures"] for table in kept["tables"])
            if directory:
                pages.write(directory, [kept])
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 1 if has_failed else 0


if __name__ == "__main__":
    sys.exit(main())
