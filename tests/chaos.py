"""Chaos: many clients, and everything killed, while an oracle knows what must hold.

    python3 tests/chaos.py [--seed N] [--minutes M] [--steps N] [--scenario one|both|all]

Scenario `one`: random verbs from several clients at once, floods, attached terminals, and
between them one misfortune after the other: daemon killed, guard killed (never both at once:
whoever is killed next waits until the other is whole again), daemon stopped until it counts
as deaf, replaced, sockets deleted, records corrupted, descriptors used up, clients killed,
the program overwritten.  In the end nothing may be lost, doubled, orphaned or leaked.
Scenario `both`: guard and daemon killed at the same moment; then living sessions are lost,
and told as that, and nothing else is.

The seed decides which steps there are and what each of them picks; the moments at which they
meet the processes differ in each run.  A failure prints seed, steps, both logs and the
directory, which it keeps.  The oracle is chaos_books.py, the programs are chaos_child.py.
"""

import argparse
import contextlib
import fcntl
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from chaos_books import Ledger, Wrong       # noqa: E402
from world import LIMIT_S, MEMORY, ROOT, World, default_signals, is_alive, wait_until   # noqa: E402

CHILD = os.path.join(ROOT, "tests", "chaos_child.py")
SLOTS = 6                   # sessions that live at the same time
SHORT_ERRANDS = 5           # verbs under way at the same time
LONG_ERRANDS = 10           # run, attach, wait, log -f
ERRAND_LIMIT_S = 150.0      # a verb that takes longer hangs
ENDED_MAX = 15              # then those that have ended are audited and removed
DEAF_PAUSE_S = 45.0         # of deaf daemons: more than three deaths in 60 s open the circuit
IDLE_CONNECTIONS = 500
NEWER = "9.9.9"

# Of a terminal that was lent, after its daemon died: painted anew, or left with all modes undone.
NOT_THE_PROGRAMS = (b"\x18\x1b[?1049l", b"\x1b7\x1b[r\x1b[?2026l")
GONE_CODES = {3, 5}
BUSY_CODE = 4
CUT_CODES = {1, 6, 124}     # the daemon went while something was done that is never done twice


# -- clients -----------------------------------------------------------------------------------

class Errand:
    """One client process and what is expected of it.  `judge(errand, code)` is told its end."""

    def __init__(self, number, process, args, ledger, judge, out, err):
        self.number = number
        self.process = process
        self.args = args
        self.ledger = ledger
        self.judge = judge
        self._out, self._err = out, err
        self.began = time.monotonic()
        self.is_long = False
        self.is_exclusive = False
        self.was_killed = False     # by us: whatever it has done is fine
        self.was_detached = False

    def __str__(self):
        return f"#{self.number} {' '.join(self.args[:6])}"

    def out(self):
        with open(self._out, "rb") as file:
            return file.read()

    def err(self):
        with open(self._err, errors="replace") as file:
            return file.read()

    def poll(self):
        return self.process.poll()

    def kill(self):
        self.was_killed = True
        if self.process.poll() is None:
            self.process.kill()

    def forget(self):
        for path in (self._out, self._err):
            os.unlink(path)


class Attached(Errand):
    """A client in a terminal of its own; another process reads there all the time."""

    def __init__(self, number, argv, env, args, ledger, judge, out):
        self._master, self._slave = os.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

        def take_terminal():
            default_signals()
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        process = subprocess.Popen(argv, env=env, stdin=self._slave, stdout=self._slave,
                                   stderr=self._slave, preexec_fn=take_terminal)
        with open(out, "wb") as file:
            self._reader = subprocess.Popen(["cat"], stdin=self._master, stdout=file,
                                            stderr=subprocess.DEVNULL)
        super().__init__(number, process, args, ledger, judge, out, None)

    @property
    def is_open(self):
        """Whether somebody could type there."""
        return self._slave >= 0 and self.process.poll() is None

    def type(self, data):
        """Type that, if our client has the terminal and it takes it at once; whether it was."""
        if self._slave < 0 or termios.tcgetattr(self._slave)[3] & termios.ECHO \
                or not select.select([], [self._master], [], 0)[1]:
            return False
        os.write(self._master, data)
        return True

    def resize(self, cols, rows):
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def poll(self):
        code = self.process.poll()
        if code is not None and self._slave >= 0:
            os.close(self._slave)           # then the reader comes to the end
            self._slave = -1
            self._reader.wait(LIMIT_S)
            os.close(self._master)
        return code

    def hang_up(self):
        """The terminal goes away."""
        self.was_killed = True
        if self._slave < 0:
            return
        self._reader.kill()
        self._reader.wait()
        os.close(self._slave)
        os.close(self._master)
        self._slave = -1

    def kill(self):
        super().kill()
        self.process.wait()
        if self._slave >= 0:
            self.poll()

    def err(self):
        return ""

    def forget(self):
        os.unlink(self._out)

    def shown(self):
        """The program's output as it came here, without our client's own words; None with a gap."""
        output = self.out()
        if b"was overwritten before it was read" in output:
            return None
        program, ours, _ = output.partition(b"ptyguard: ")
        return program[:-2] if ours and program.endswith(b"\r\n") else program


# -- the conductor -------------------------------------------------------------------------------

class Chaos:
    """One world in which the steps of one seed are taken."""

    def __init__(self, seed, say=print):
        self.seed = seed
        self.say = say
        self.chance = random.Random(seed)
        self.began = time.monotonic()
        self.world = None
        self.ledgers = []           # all of them, by the time of their start
        self.slots = [None] * SLOTS
        self.errands = []
        self.serial = 0
        self.steps = []
        self.faults = []            # (when, what)
        self.frozen = []            # (errand, until which step)
        self.idle = []              # connections that say nothing
        self.idle_until = 0
        self.stopped = None         # (pid, until which step)
        self.deaf_at = -DEAF_PAUSE_S
        self.counts = {}
        self.steps_taken = 0
        self.end = None             # how all new children end; None: each as it comes

    # -- the world -------------------------------------------------------------------------

    def __enter__(self):
        limit = self.chance.choice((None, None, 400))
        policy = self.chance.choice(("idle", "always", "never"))
        self.world = World(under=MEMORY, PTYGUARD_KEEP_COUNT="1000",
                           PTYGUARD_KEEP_OUTPUT=str(1 << 30), PTYGUARD_AUTO_UPGRADE=policy)
        directory = self.world.directory
        self.notes = os.path.join(directory, "notes")
        self.files = os.path.join(directory, "files")
        for path in (self.notes, self.files):
            os.mkdir(path)
        self.archives = [build_archive(directory, "older.pyz"),
                         build_archive(directory, "newer.pyz", NEWER)]
        self.pyz = os.path.join(directory, "ptyguard.pyz")
        shutil.copy(self.archives[0], self.pyz)
        self.world.program = [sys.executable, self.pyz]
        if limit is not None:
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            self._limit = (min(limit, hard),) * 2
        else:
            self._limit = None
        self.note(f"seed {self.seed}, descriptors {limit or 'as given'}, upgrades {policy}")
        done = subprocess.run(self.world.program + ["ls"], env=self.world.env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=self._limited)
        if done.returncode:
            raise Wrong(f"it does not start: {done.stderr}")
        self.base = {which: descriptors(pid) for which, pid in self.pids().items()}
        return self

    def _limited(self):
        default_signals()
        if self._limit is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._limit)

    def __exit__(self, kind, error, _):
        for errand in self.errands:
            with contextlib.suppress(Exception):
                errand.kill()
                errand.process.wait()
        self.let_go_of_connections()
        if self.stopped:
            with contextlib.suppress(OSError):
                os.kill(self.stopped[0], signal.SIGCONT)
        if kind is None or not issubclass(kind, Exception):
            self.world.close()
            return
        self.report(error)
        kept = tempfile.mkdtemp(prefix="chaos-", dir="/tmp")
        shutil.copytree(self.world.directory, kept, dirs_exist_ok=True, symlinks=True,
                        ignore=lambda where, names: [name for name in names
                                                     if name.endswith((".sock", ".pyz"))])
        self.say(f"-- kept: {kept}")
        self.world.close()

    def report(self, error):
        self.say(f"-- seed {self.seed} FAILED after {len(self.steps)} notes: {type(error).__name__}: {error}")
        for line in self.steps[-200:]:
            self.say(line)
        for which in ("guard", "daemon"):
            self.say(f"-- {which}.log:")
            self.say("\n".join(self.world.log(which).splitlines()[-40:]))

    def note(self, text):
        line = f"{time.monotonic() - self.began:8.3f} {text}"
        self.steps.append(line)
        if os.environ.get("CHAOS_LOUD"):
            self.say(line)

    def pids(self):
        return {"guard": self.world.guard_pid(), "daemon": self.world.daemon_pid()}

    # -- errands -----------------------------------------------------------------------------

    def send_out(self, args, ledger, judge, is_long=False, is_exclusive=False, input_=None):
        """Begin one client; `judge(errand, code)` when it is back."""
        self.serial += 1
        out, err = (os.path.join(self.files, f"{self.serial}.{what}") for what in ("out", "err"))
        if input_ is not None:
            path = os.path.join(self.files, f"{self.serial}.input")
            with open(path, "wb") as file:
                file.write(input_)
        with open(out, "wb") as stdout, open(err, "wb") as stderr, \
                open(path if input_ is not None else os.devnull, "rb") as stdin:
            process = subprocess.Popen(self.world.program + args, env=self.world.env, stdin=stdin,
                                       stdout=stdout, stderr=stderr, preexec_fn=self._limited)
        return self._under_way(Errand(self.serial, process, args, ledger, judge, out, err),
                               is_long, is_exclusive)

    def attach(self, args, ledger, judge, is_direct):
        """`is_direct`: its terminal is lent to the daemon, where it may be."""
        self.serial += 1
        return self._under_way(Attached(
            self.serial, self.world.program + args, dict(self.world.env, PTYGUARD_DIRECT=str(int(is_direct))),
            args, ledger, judge,
            os.path.join(self.files, f"{self.serial}.out")), True, False)

    def _under_way(self, errand, is_long, is_exclusive):
        errand.is_long = is_long
        errand.is_exclusive = is_exclusive
        if is_exclusive:
            errand.ledger.busy.add(errand)
        self.errands.append(errand)
        self.note(f"  {errand} ({errand.ledger.tag if errand.ledger else '-'})")
        return errand

    def reap(self):
        """Judge those that are back; complain of those that never come."""
        for errand in list(self.errands):
            code = errand.poll()
            if code is None:
                if not errand.is_long and time.monotonic() - errand.began > ERRAND_LIMIT_S:
                    raise Wrong(f"{errand} hangs; it said {errand.err()!r}")
                continue
            self.errands.remove(errand)
            self._back(errand, code)

    def _back(self, errand, code):
        self.note(f"  {errand} is back: {code}{' (killed)' if errand.was_killed else ''}")
        if errand.is_exclusive:
            errand.ledger.busy.discard(errand)
        said = errand.err()
        if "Traceback" in said and not errand.was_killed:
            raise Wrong(f"{errand} fell over: {said}")
        errand.judge(errand, code)
        errand.forget()

    def await_errands(self, which=lambda errand: not errand.is_long, limit_s=ERRAND_LIMIT_S):
        def back():
            self.reap()
            return not any(map(which, self.errands))
        try:
            wait_until(back, "the end of all errands", limit_s)
        except AssertionError as error:
            if isinstance(error, Wrong):
                raise
            raise Wrong(f"never back: {[str(e) for e in self.errands if which(e)]}") from None

    def was_disturbed(self, errand, *kinds):
        """Whether a misfortune (of these kinds) was near that errand's time."""
        return any(when > errand.began - 20.0 and (not kinds or what in kinds)
                   for when, what in self.faults)

    def expect(self, errand, code, *legal):
        """A code that must be; none of that counts while descriptors are used up."""
        if code in legal or errand.was_killed or self.was_disturbed(errand, "squeeze"):
            return code in legal
        ledger = errand.ledger
        if code in GONE_CODES and ledger is not None and (ledger.may_be_missing or ledger.is_removed):
            return False
        if code == BUSY_CODE and "is just being started" in errand.err() and (
                ledger.restarts or not ledger.is_started):
            return False
        raise Wrong(f"{errand}: exit code {code}, expected {legal}; it said {errand.err()!r}")

    # -- sessions ----------------------------------------------------------------------------

    def new_ledger(self, slot, chance):
        tag = f"t{len(self.ledgers)}"
        ledger = Ledger(self.notes, tag, f"s{slot}.{len(self.ledgers)}")
        ledger.may_be_missing = True
        is_flood = chance.random() < 0.4
        ledger.conduct = {
            "seed": self.seed,
            "bytes": chance.choice((0, 200, 5000, 60_000, 300_000, 900_000)) * (3 if is_flood else 1),
            "chunk": 65536 if is_flood else chance.choice((10, 200, 5000)),
            "pause_s": 0 if is_flood else chance.choice((0.001, 0.01, 0.1)),
            "end": self.end or chance.choice(("rest", "rest", "rest", "exit:0",
                                              f"exit:{chance.randrange(256)}",
                                              f"signal:{chance.choice((1, 6, 9, 10, 15))}")),
            "stubborn": chance.random() < 0.2,
            "family": chance.random() < 0.3}
        if not is_flood:
            ledger.conduct["bytes"] = min(ledger.conduct["bytes"], 200 * ledger.conduct["chunk"])
        self.ledgers.append(ledger)
        self.slots[slot] = ledger
        return ledger

    def child_argv(self, ledger):
        return ["--", sys.executable, "-I", "-S", CHILD, self.notes, ledger.tag,
                json.dumps(ledger.conduct)]

    def options(self, chance):
        return ["--scrollback", chance.choice(("64K", "256K", "256K", "1M")),
                "--size", chance.choice(("80x24", "132x43"))]

    def target(self, ledger, chance):
        """Its name or its id, as far as they are certain."""
        if ledger.name and (not ledger.id or chance.random() < 0.5):
            return ledger.name
        return "@" + ledger.id if ledger.id else None

    def known(self, slot):
        """The session in that slot, once it is known to live or to have lived."""
        ledger = self.slots[slot]
        if ledger is None:
            return None
        ledger.spawns()
        return ledger if ledger.id else None

    # -- steps -------------------------------------------------------------------------------

    def step(self, number):
        """What the seed has for this step; the same in each run, but for what it finds."""
        chance = random.Random(f"{self.seed}.{number}")
        act = chance.choices([name for name, _ in STEPS], [weight for _, weight in STEPS])[0]
        slot = chance.randrange(SLOTS)
        self.note(f"step {number}: {act} s{slot}")
        self.reap()
        if act in NEEDS_CLIENT:
            self.await_room()
        for other in range(SLOTS):          # the first that will do
            if getattr(self, "do_" + act)((slot + other) % SLOTS, chance) is not False:
                self.counts[act] = self.counts.get(act, 0) + 1
                break
        self.end_of_misfortunes(number)
        until = time.monotonic() + chance.choice((0, 0.02, 0.1, 0.3))
        while time.monotonic() < until:
            select.select([], [], [], 0.01)     # the world goes on meanwhile
            self.reap()
        for ledger in self.slots:
            if ledger is not None:
                ledger.check_children()
                ledger.check_input()

    def await_room(self):
        """Not more clients at the same time than the machine can bear."""
        def room():
            self.reap()
            short = {errand for errand in self.errands if not errand.is_long}
            if short and short <= {errand for errand, _ in self.frozen}:
                self.thaw()
            return len(short) < SHORT_ERRANDS
        wait_until(room, "the end of a verb", ERRAND_LIMIT_S + LIMIT_S)

    def end_of_misfortunes(self, number):
        self.thaw(number)
        if self.idle and number >= self.idle_until:
            self.let_go_of_connections()
        if self.stopped and number >= self.stopped[1]:
            with contextlib.suppress(OSError):
                os.kill(self.stopped[0], signal.SIGCONT)
            self.stopped = None

    def fault(self, what):
        self.faults.append((time.monotonic(), what))

    # -- steps: sessions begin ----------------------------------------------------------------

    def do_start(self, slot, chance):
        ledger = self.slots[slot]
        if ledger is not None and not ledger.is_over:
            return False
        how = chance.choice(("start", "start", "ensure", "run", "run"))
        ledger = self.new_ledger(slot, chance)
        if how == "start" and chance.random() < 0.3:
            self.take_name(ledger, chance)
        words = [how, ledger.name] if how == "ensure" else [how, "-n", ledger.name]
        args = words + ["--json"] + self.options(chance)
        if chance.random() < 0.25:
            ledger.log = os.path.join(self.notes, ledger.tag + ".log")
            args += ["--log", ledger.log]
        args += self.child_argv(ledger)
        if how == "run":
            return self.send_out(args, ledger, self.judge_run, is_long=True)
        if how == "ensure" and ledger.conduct["end"] == "rest":
            for _ in range(chance.choice((0, 0, 2))):       # they all mean the same one
                self.send_out(args, ledger, self.judge_start, is_exclusive=True)
        return self.send_out(args, ledger, self.judge_start, is_exclusive=True)

    def take_name(self, ledger, chance):
        """The name of one that has ended, which is forgotten then, or was destroyed."""
        free = [other for other in self.ledgers if other.is_over and other.name and not other.busy
                and other not in self.slots]
        if free:
            other = chance.choice(free)
            ledger.name, other.name = other.name, None
            ledger.took_name = other.may_be_missing = True
            other.is_destroyed = False

    def judge_start(self, errand, code):
        if code == 4 and errand.ledger.took_name:       # whoever has that name still lives
            errand.ledger.is_removed = True
            return
        if self.expect(errand, code, 0):
            facts = json.loads(errand.out())
            if errand.ledger.id not in (None, facts["id"]):
                raise Wrong(f"{errand} made another session than {errand.ledger.id}: {facts}")
            errand.ledger.id = facts["id"]
            errand.ledger.is_started = True
            errand.ledger.may_be_missing = False
        elif not errand.was_killed and errand.ledger.spawns() and code != 6:
            raise Wrong(f"{errand} failed with {code}, and yet there is a child: {errand.err()}")

    def judge_run(self, errand, code):
        """All output of the session, and its status."""
        ledger = errand.ledger
        end = self.check_run_output(errand)
        if errand.was_killed or code == 75 and errand.was_detached:
            return
        if ledger.is_removed or ledger.busy or ledger.was_killed and ledger.may_be_missing:
            if code in (3, 125):
                return                  # it was removed under it
        if not self.was_disturbed(errand, "squeeze"):
            ledger.check_code(code, str(errand))
            ledger.is_started = True
            # A removal that was cut off may have been the end that the run saw.
            if not (ledger.is_removed or ledger.busy or ledger.was_killed):
                ledger.may_be_missing = False
            ledger.check_end(end, str(errand))

    def check_run_output(self, errand):
        """It holds the program; so it misses something only if it was away for too long."""
        said = errand.err()
        gone = [(int(a), int(b)) for a, b in re.findall(
            r"output (\d+) to (\d+) was overwritten before it was read", said)]
        if gone and "holders_missing" not in self.all_logs("daemon"):
            raise Wrong(f"{errand} held the program, and yet missed output: {said}")
        return self.check_pieces(errand.ledger, 0, errand.out(), gone, str(errand))

    # -- steps: looking ------------------------------------------------------------------------

    def do_look(self, slot, chance):
        verb = chance.choice(("ls", "ls", "status", "doctor", "prune", "reconcile", "has", "info", "info"))
        ledger = self.known(slot)
        if verb in ("has", "info"):
            if ledger is None:
                return False
            args = [verb, self.target(ledger, chance)] + ["--json"] * (verb == "info")
            legal = (0, 1) if verb == "has" else (0,)
        else:
            args = {"ls": ["ls", "-a", "--json"], "status": ["status", "--json"],
                    "doctor": ["doctor", "--json"], "prune": ["prune", "--dry-run"],
                    "reconcile": ["reconcile", "--dry-run", "--idle", "0", "--live", "nobody"]}[verb]
            ledger = None
            legal = (0, 1) if verb in ("status", "doctor", "reconcile") else (0,)
        def judge(errand, code):
            self.expect(errand, code, *legal)
            if code == 0 and "--json" in args:
                json.loads(errand.out())
        return self.send_out(args, ledger, judge)

    def do_log(self, slot, chance):
        ledger = self.known(slot)
        if ledger is None:
            return False
        spawns = ledger.spawns()
        since = chance.choice((0, 0, spawns[0].confirmed // 2)) if spawns else 0
        follow = chance.random() < 0.4
        args = ["log", self.target(ledger, chance), "--raw", "--since", str(since)]
        if follow:
            args += ["-f"] + chance.choice(([], [], ["--hold", "1s"]))

        def judge(errand, code):
            said = errand.err()
            gone = [(int(a), int(b)) for a, b in re.findall(r"output (\d+) to (\d+) is gone", said)]
            data = errand.out()
            end = self.check_pieces(ledger, since, data, gone, str(errand))
            over = re.search(r"output (\d+) to (\d+) of \S+ was overwritten", said)
            if over and (int(over[1]) != end or int(over[2]) <= int(over[1])) and not errand.was_killed:
                raise Wrong(f"{errand} has written up to {end}, and says: {said}")
            if follow and over and "--hold" not in args and not self.was_disturbed(errand):
                raise Wrong(f"{errand} held the program, and yet missed output: {said}")
            self.expect(errand, code, *((1,) if gone or over else (0,)))
            if code == 0 and follow and not errand.was_killed and not errand.was_detached \
                    and not ledger.is_removed and not ledger.restarts:
                ledger.check_end(end, str(errand))
        if follow and not self.room_for_long():
            return False
        return self.send_out(args, ledger, judge, is_long=follow)

    @staticmethod
    def check_pieces(ledger, offset, data, gone, what):
        """`data` begins at `offset` and leaves out what is told to be `gone`; where it ends."""
        for first, next_ in gone:
            if not offset <= first <= offset + len(data) or next_ <= first:
                raise Wrong(f"{what}: output {first} to {next_} is said to be gone, after {offset}")
            ledger.check_stream(offset, data[:first - offset], what)
            offset, data = next_, data[first - offset:]
        ledger.check_stream(offset, data, what)
        return offset + len(data)

    def do_wait(self, slot, chance):
        ledger = self.known(slot)
        if ledger is None or not self.room_for_long():
            return False

        def judge(errand, code):
            if errand.was_killed or self.was_disturbed(errand, "squeeze"):
                return
            if code in (3, 5, 125) and (ledger.is_removed or ledger.may_be_missing):
                return
            if not ledger.restarts:
                ledger.check_code(code, str(errand))
        return self.send_out(["wait", self.target(ledger, chance), "--json"], ledger, judge, is_long=True)

    def room_for_long(self):
        return sum(errand.is_long for errand in self.errands) < LONG_ERRANDS

    # -- steps: attached terminals -------------------------------------------------------------

    def do_attach(self, slot, chance):
        ledger = self.known(slot)
        if ledger is None or not ledger.living() or not self.room_for_long():
            return False
        args = ["attach", self.target(ledger, chance), "--restore", "none"]
        if chance.random() < 0.2:
            args.append("-r")
        is_direct = chance.random() < 0.5

        def judge(errand, code):
            output = errand.shown()
            for beginning in NOT_THE_PROGRAMS if output is not None and is_direct else ():
                output = output.partition(beginning)[0]
            if output is not None and b"ptyguard: " in errand.out() and code in (0, 125) or code is not None:
                if output:
                    ledger.find_stream(output, str(errand))
            if errand.was_killed or errand.was_detached or self.was_disturbed(errand, "squeeze"):
                return
            if code in (0, 3, BUSY_CODE, 5, 6, 125) and (ledger.is_over or ledger.restarts):
                return
            if code == 0 and b"[detached" in errand.out():
                return          # somebody said `detach`
            ledger.check_code(code, str(errand))
        return self.attach(args, ledger, judge, is_direct)

    def terminals(self, slot):
        return [errand for errand in self.errands if isinstance(errand, Attached)
                and errand.ledger is self.slots[slot] and errand.is_open]

    def do_use_terminal(self, slot, chance):
        found = self.terminals(slot)
        if not found:
            return False
        terminal = chance.choice(found)
        act = chance.choice(("type", "type", "resize", "leave", "hang up"))
        self.note(f"  {act}: {terminal}")
        if act == "type":
            if "-r" in terminal.args or terminal.ledger.busy or not terminal.ledger.living():
                return False
            line = self.new_line(terminal.ledger)
            terminal.ledger.sent.append((line, False))
            terminal.ledger.lost_input = True       # nobody confirms what is typed
            if not terminal.type(line + b"\n"):
                return False
        elif act == "resize":
            terminal.resize(chance.randrange(20, 200), chance.randrange(5, 60))
        elif act == "leave":
            terminal.was_detached = True
            return terminal.type(b"\x1c")
        else:
            terminal.hang_up()
        return True

    def new_line(self, ledger):
        return b"%s line %d" % (ledger.tag.encode(), len(ledger.sent))

    def do_detach(self, slot, chance):
        ledger = self.known(slot)
        if ledger is None:
            return False
        for errand in self.errands:
            if errand.ledger is ledger and errand.is_long:
                errand.was_detached = True

        def judge(errand, code):
            if not (code == 1 and ledger.is_over):
                self.expect(errand, code, 0, *(CUT_CODES if self.was_disturbed(errand) else ()))
        return self.send_out(["detach", self.target(ledger, chance)], ledger, judge)

    # -- steps: changes ------------------------------------------------------------------------

    def free(self, slot):
        """A living session that nobody else changes at this moment."""
        ledger = self.known(slot)
        return ledger if ledger is not None and not ledger.busy and ledger.living() else None

    def do_send(self, slot, chance):
        ledger = self.free(slot)
        if ledger is None or any(errand.ledger is ledger for errand in self.errands
                                 if isinstance(errand, Attached)):
            return False            # two who type at once have no order
        is_last = chance.random() < 0.15
        line = b"quit %d" % chance.randrange(200) if is_last else self.new_line(ledger)
        ledger.sent.append((line, False))
        at = len(ledger.sent) - 1
        how = chance.choice(("send", "stdin", "key"))
        target = self.target(ledger, chance)
        args, input_ = {
            "send": (["send", target, "--timeout", "20", line.decode() + "\n"], None),
            "stdin": (["send", target, "--timeout", "20", "-"], line + b"\n"),
            "key": (["key", target, "--timeout", "20", "--literal", line.decode() + "\n"], None)}[how]

        def judge(errand, code):
            if code == 0:
                ledger.sent[at] = (line, True)
            else:
                ledger.lost_input = True
                # It may have ended before it was typed; a flood reads nothing for long.
                legal = {1, 124} | (CUT_CODES if self.was_disturbed(errand) else set())
                if ledger.is_over or ledger.restarts:
                    legal |= GONE_CODES | {1}
                self.expect(errand, code, *legal)
        return self.send_out(args, ledger, judge, is_exclusive=True, input_=input_)

    def do_resize(self, slot, chance):
        ledger = self.known(slot)
        if ledger is None:
            return False
        size = f"{chance.randrange(1, 300)}x{chance.randrange(1, 100)}"

        def judge(errand, code):
            if not (code in (1, 3) and ledger.is_over):
                self.expect(errand, code, 0)
        return self.send_out(["resize", self.target(ledger, chance), size], ledger, judge)

    def do_rename(self, slot, chance):
        ledger = self.known(slot)
        if ledger is None or ledger.busy or ledger.name is None:
            return False
        if any(errand.ledger is ledger and ledger.name in errand.args for errand in self.errands):
            return False            # it would look for that name in vain
        old, new = ledger.name, f"{ledger.tag}.{chance.randrange(1000)}"
        target = self.target(ledger, chance)
        ledger.name = None

        def judge(errand, code):
            disturbed = errand.was_killed or self.was_disturbed(errand)
            if self.expect(errand, code, 0, *(CUT_CODES if disturbed else ())) and code == 0:
                ledger.name = new
            elif not disturbed:
                ledger.name = old
        return self.send_out(["rename", target, new], ledger, judge, is_exclusive=True)

    def do_restart(self, slot, chance):
        ledger = self.known(slot)
        if ledger is None or ledger.busy or not ledger.is_started or ledger.is_removed:
            return False
        if any(errand.ledger is ledger and errand.args[0] == "run" for errand in self.errands):
            return False
        ledger.restarts += 1
        ledger.was_killed = True
        ledger.is_audited = False

        def judge(errand, code):
            disturbed = errand.was_killed or self.was_disturbed(errand)
            self.expect(errand, code, 0, *(CUT_CODES if disturbed else ()))
        return self.send_out(["restart", self.target(ledger, chance), "--grace", "500ms"], ledger,
                             judge, is_exclusive=True)

    def do_kill(self, slot, chance):
        ledger = self.known(slot)
        if ledger is None or ledger.busy:
            return False
        args = ["kill", self.target(ledger, chance)]
        name = chance.choice((None, None, "USR1", "KILL", "CONT"))
        if name != "CONT":
            ledger.was_killed = True
        if name is None:
            args += ["--grace", "500ms"]
        else:
            args += ["--signal", name]
            ledger.signals.add("SIG" + name)

        def judge(errand, code):
            disturbed = errand.was_killed or self.was_disturbed(errand)
            legal = CUT_CODES if disturbed and name is not None else ()
            if self.expect(errand, code, 0, *legal) and code == 0 and name is None:
                self.check_all_gone(ledger, str(errand))
        return self.send_out(args, ledger, judge, is_exclusive=True)

    def do_remove(self, slot, chance):
        ledger = self.known(slot)
        if ledger is None or ledger.busy:
            return False
        ledger.was_killed = True
        ledger.may_be_missing = True
        self.slots[slot] = None
        args = ["rm", self.target(ledger, chance)] + ["--no-tombstone"] * (chance.random() < 0.3)

        def judge(errand, code):
            disturbed = errand.was_killed or self.was_disturbed(errand)
            if self.expect(errand, code, 0, *(CUT_CODES if disturbed else ())) and code == 0:
                ledger.is_removed = True
                ledger.is_destroyed = "--no-tombstone" not in args
                self.check_all_gone(ledger, str(errand))
        return self.send_out(args, ledger, judge, is_exclusive=True)

    def do_ensure_destroyed(self, _slot, chance):
        """What was destroyed does not come back unasked, whoever has died since."""
        destroyed = [ledger for ledger in self.ledgers
                     if ledger.is_destroyed and ledger.name and not ledger.busy]
        if not destroyed:
            return False
        ledger = chance.choice(destroyed)
        stranger = Ledger(self.notes, f"x{self.serial}", ledger.name)
        stranger.conduct = ledger.conduct

        def judge(errand, code):
            if code != 5:
                self.expect(errand, code)
            if stranger.spawns():
                raise Wrong(f"{errand}: {ledger.name} was destroyed, and came back")
        return self.send_out(["ensure", ledger.name] + self.child_argv(stranger), ledger, judge,
                             is_exclusive=True)

    def check_all_gone(self, ledger, what):
        """No process of a session that was ended."""
        left = marked(f"PTYGUARD_SESSION_ID={ledger.id}")
        if left:
            raise Wrong(f"{what} is done, and of {ledger.tag} there still are {left}")

    def do_audit(self, slot, _chance):
        """Sessions that have ended: output and status; then most of them are removed."""
        ended = [ledger for ledger in self.ledgers if ledger.is_over and not ledger.is_removed]
        if len(ended) < ENDED_MAX:
            return False
        self.calm()
        listed = self.listed()
        for ledger in self.ledgers:
            if not ledger.is_removed and not ledger.busy:
                self.audit(ledger, listed.get(ledger.id))
        for ledger in ended:
            facts = listed.get(ledger.id)
            if facts and facts["state"] == "ended" and ledger not in self.slots \
                    and not any(errand.ledger is ledger for errand in self.errands):
                ledger.is_removed = ledger.may_be_missing = True
                self.world.run("rm", "@" + ledger.id, "--no-tombstone", check=0)

    # -- steps: misfortunes -----------------------------------------------------------------

    def whole(self):
        """Guard and daemon know of each other, and nothing is under way between them."""
        last = None
        for line in self.world.log("guard").splitlines():
            words = line.split()
            if len(words) > 2 and words[2] in ("banner", "daemon_started", "daemon_serving",
                                               "daemon_ended", "deposit_begun", "deposit_done",
                                               "deposit_broken", "daemon_killed", "reexec",
                                               "resumed"):
                last = words[2]
        return last in ("daemon_serving", "deposit_done", "resumed")

    def calm(self):
        """No misfortune is under way: the world is whole, and it answers."""
        self.thaw()
        self.let_go_of_connections()
        if self.stopped:
            with contextlib.suppress(OSError):
                os.kill(self.stopped[0], signal.SIGCONT)
            self.stopped = None
        self.await_errands(lambda errand: errand.args[0] in ("daemon", "upgrade"))
        self.world.run("ls", check=0)
        wait_until(self.whole, "guard and daemon that know of each other")

    def do_kill_daemon(self, _slot, chance):
        self.fault("kill_daemon")
        for _ in range(chance.choice((1, 1, 1, 3))):
            pid = self.world.kill_daemon()
            self.note(f"  daemon {pid} is dead")

    def do_kill_guard(self, _slot, _chance):
        self.calm()
        listed = self.listed()
        self.calm()                 # whoever was deaf when it was asked, is not now
        at = time.monotonic()
        for ledger in self.ledgers:
            facts = listed.get(ledger.id)
            if not facts or facts["state"] != "ended":
                ledger.guard_deaths.append(at)
        self.fault("kill_guard")
        pid = self.world.kill_guard()
        for ledger in self.ledgers:
            if ledger.guard_deaths and ledger.guard_deaths[-1] == at:
                ledger.guard_deaths[-1] = time.monotonic()
        self.note(f"  guard {pid} is dead")
        self.world.new_guard_pid(pid)
        wait_until(self.whole, "a deposit with the new guard")

    def do_replace(self, _slot, chance):
        """The daemon, by the older or the newer archive, or by what runs; the guard as well."""
        self.fault("replace")
        archive = chance.choice(self.archives)
        args = chance.choice((["daemon", "restart"], ["upgrade", "--to", archive],
                              ["upgrade", "--to", archive, "--guard"]))

        def judge(errand, code):
            disturbed = self.was_disturbed(errand, "kill_daemon", "kill_guard", "deaf", "stop_guard",
                                           "sockets", "squeeze")
            self.expect(errand, code, 0, *((1, 4, 6, 124) if disturbed else ()))
        return self.send_out(args, None, judge)

    def do_deafen(self, _slot, chance):
        """The daemon is stopped; clients notice, and the guard may replace it."""
        if self.stopped or time.monotonic() - self.deaf_at < DEAF_PAUSE_S:
            return False
        self.deaf_at = time.monotonic()
        self.fault("deaf")
        pid = self.world.daemon_pid()
        os.kill(pid, signal.SIGSTOP)
        self.stopped = (pid, int(self.steps_taken + chance.choice((2, 10, 40))))
        self.note(f"  daemon {pid} is stopped")

    def do_stop_guard(self, _slot, chance):
        """The guard takes a break; nobody replaces it."""
        self.fault("stop_guard")
        pid = self.world.guard_pid()
        os.kill(pid, signal.SIGSTOP)
        until = time.monotonic() + chance.uniform(0.1, 2.0)
        while time.monotonic() < until:
            select.select([], [], [], 0.02)
            self.reap()
        os.kill(pid, signal.SIGCONT)

    def do_delete_socket(self, _slot, chance):
        self.fault("sockets")
        for name in chance.choice((["client.sock"], ["guard.sock"], ["client.sock", "guard.sock"])):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.world.place, name))

    def do_corrupt_record(self, _slot, chance):
        """What runs and what has ended is known without it, as long as the guard lives."""
        directory = os.path.join(self.world.state, "sessions")
        names = sorted(name for name in os.listdir(directory) if name.endswith(".json"))
        if not names:
            return False
        path = os.path.join(directory, chance.choice(names))
        self.fault("corrupt")
        how = chance.choice(("truncate", "garbage", "empty", "list", "unlink"))
        with contextlib.suppress(OSError):
            if how == "unlink":
                os.unlink(path)
            elif how == "truncate":
                os.truncate(path, os.path.getsize(path) // 2)
            else:
                with open(path, "wb") as file:
                    file.write({"garbage": os.urandom(300), "empty": b"", "list": b"[1, 2]\n"}[how])
        self.note(f"  {how} {os.path.basename(path)}")

    def do_squeeze(self, _slot, chance):
        """Connections that say nothing, until nobody has a descriptor left."""
        if self.idle:
            return False
        self.fault("squeeze")
        path = os.path.join(self.world.place, "client.sock")
        for _ in range(IDLE_CONNECTIONS):
            one = socket.socket(socket.AF_UNIX)
            one.setblocking(False)
            try:
                one.connect(path)
            except OSError:
                one.close()
                continue
            self.idle.append(one)
        self.idle_until = self.steps_taken + chance.randrange(2, 12)
        self.note(f"  {len(self.idle)} idle connections")

    def let_go_of_connections(self):
        if self.idle:
            self.fault("squeeze")       # its consequences end somewhat later
        for one in self.idle:
            one.close()
        self.idle = []

    def do_kill_client(self, _slot, chance):
        if not self.errands:
            return False
        errand = chance.choice(self.errands)
        if errand.args[0] in ("daemon", "upgrade"):
            return False
        errand.kill()
        if errand.ledger is not None and errand.is_exclusive:
            errand.ledger.lost_input = True
        self.note(f"  killed: {errand}")

    def do_freeze_client(self, _slot, chance):
        """It is there, and does not read."""
        able = [errand for errand in self.errands if errand.process.poll() is None]
        if not able:
            return False
        errand = chance.choice(able)
        errand.process.send_signal(signal.SIGSTOP)
        self.frozen.append((errand, self.steps_taken + chance.choice((1, 5, 20))))
        self.note(f"  frozen: {errand}")

    def thaw(self, number=None):
        """Let go on whoever was frozen until that step; None: all."""
        for frozen in list(self.frozen):
            errand, until = frozen
            if number is None or number >= until:
                errand.process.send_signal(signal.SIGCONT)
                self.frozen.remove(frozen)

    def do_new_program(self, _slot, chance):
        """Another version is put where the clients' program is."""
        draft = self.pyz + ".draft"
        shutil.copy(chance.choice(self.archives), draft)
        os.rename(draft, self.pyz)

    # -- what is told ---------------------------------------------------------------------------

    def listed(self):
        """All sessions that are told of, by id; nobody twice."""
        done = self.world.run("ls", "-a", "--json", timeout=ERRAND_LIMIT_S, check=0)
        sessions = json.loads(done.stdout)["sessions"]
        found = {facts["id"]: facts for facts in sessions}
        if len(found) != len(sessions):
            raise Wrong(f"a session is told twice: {sessions}")
        tags = [facts["argv"][5] for facts in sessions]
        if len(tags) != len(set(tags)):
            raise Wrong(f"one start made two sessions: {sorted(tags)}")
        for ledger in self.ledgers:
            ledger.spawns()
        return found

    def audit(self, ledger, facts, is_final=False):
        """One session, all that is told of it against its books."""
        ledger.check_children()
        ledger.check_input()
        ledger.check_confirmed_input()
        if facts is None:
            if ledger.is_started and not ledger.may_be_missing and not ledger.is_removed:
                raise Wrong(f"{ledger.tag} ({ledger.id}) is lost")
            return
        if ledger.is_removed:
            raise Wrong(f"{ledger.tag} was removed, and is still there: {facts}")
        if facts["state"] not in ("running", "draining", "ended", "starting"):
            raise Wrong(f"{ledger.tag} is {facts['state']}: {facts}")
        if is_final and facts["state"] != "ended":
            raise Wrong(f"{ledger.tag} does not end: {facts}")
        if facts["state"] == "ended":
            ledger.check_exit(facts["exit"], "ls")
            self.check_told(ledger, facts)
        if facts["state"] == "starting":
            return
        if facts["offsets"] is None:
            raise Wrong(f"the output of {ledger.tag} is gone: {facts}")
        data = b""
        with self.world.connect() as pg:
            session = pg.session("@" + ledger.id)
            first, piece = session.read()
            while piece:
                data += piece
                piece = session.read(first + len(data))[1]
        ledger.check_stream(first, data, "what is kept")
        if facts["state"] == "ended":
            ledger.check_end(first + len(data), "what is kept")
            if ledger.log:
                self.check_log(ledger, first + len(data), facts)
            ledger.is_audited = True

    def check_log(self, ledger, end, facts):
        """All output is in the file that was asked for, sooner or later; once."""
        if ledger.busy or facts["log"]["missed"] and self.was_ever("squeeze"):
            return
        try:
            wait_until(lambda: os.path.exists(ledger.log) and os.path.getsize(ledger.log) >= end,
                       "the log")
        except AssertionError:
            raise Wrong(f"the log of {ledger.tag} never has all {end} bytes: {facts}") from None
        with open(ledger.log, "rb") as file:
            data = file.read()
        ledger.check_stream(0, data, "the log")
        ledger.check_end(len(data), "the log")

    def was_ever(self, kind):
        return any(what == kind for _, what in self.faults)

    def check_told(self, ledger, facts):
        """A status that was told once is told for ever."""
        told = (len(ledger.spawns()), json.dumps(facts["exit"], sort_keys=True))
        before = getattr(ledger, "told", None)
        if before is not None and before[0] == told[0] and before != told and not ledger.busy:
            raise Wrong(f"{ledger.tag} had ended as {before[1]}, and now as {told[1]}")
        ledger.told = told

    def all_logs(self, which):
        text = ""
        for name in sorted(os.listdir(self.world.state)):
            if name.startswith(which + ".log"):
                with open(os.path.join(self.world.state, name), errors="replace") as file:
                    text += file.read()
        return text

    # -- the end ---------------------------------------------------------------------------------

    def finish(self):
        """Everything comes to its end, and then nothing may be left."""
        self.note("the end begins")
        self.calm()
        self.await_errands()
        self.calm()
        listed = self.listed()
        for ledger in self.ledgers:
            self.audit(ledger, listed.get(ledger.id))
        for ledger in self.ledgers:
            ledger.was_killed = ledger.was_killed or not ledger.is_over
        self.world.run("kill", "--all", "--grace", "1s", check=0, timeout=ERRAND_LIMIT_S)
        self.await_errands(lambda errand: True)
        listed = self.listed()
        for ledger in self.ledgers:
            self.audit(ledger, listed.get(ledger.id), is_final=True)
        strangers = set(listed) - {ledger.id for ledger in self.ledgers}
        if strangers:
            raise Wrong(f"nobody started {[listed[id_] for id_ in strangers]}")
        self.check_processes(set(self.pids().values()))
        self.check_descriptors(len([1 for facts in listed.values() if facts["offsets"]]))
        pids = self.pids()
        self.world.run("daemon", "stop", "--sessions", "kill", check=0)
        wait_until(lambda: not any(map(is_alive, pids.values())), "the end of guard and daemon")
        self.check_processes(set())
        self.check_files()
        self.check_logs()
        self.note("all is well")

    def check_processes(self, expected):
        """Nobody of this world lives but who is expected to."""
        def orphans():
            root = self.world.env["PTYGUARD_DIR"]
            return set(marked("PTYGUARD_DIR=" + root) + servants(root)) - expected
        try:
            wait_until(lambda: not orphans(), "the end of all programs", 20.0)
        except AssertionError:
            raise Wrong(f"orphans: {[(pid, command_of(pid)) for pid in orphans()]}") from None

    def check_descriptors(self, kept):
        """What sessions explain: with no living one, one ring each, which the daemon has mapped."""
        def leaks():
            found = []
            for which, pid in self.pids().items():
                now = descriptors(pid)
                rings = now.pop("ring", 0)
                if rings != kept * (1 if which == "guard" else 2) and sys.implementation.name == "cpython":
                    found.append(f"{which}: {rings} descriptors of {kept} rings")
                for kind, count in now.items():
                    if count > self.base[which].get(kind, 0) + (2 if kind in ("socket", "pipe") else 0):
                        found.append(f"{which}: {count} of {kind}, {self.base[which].get(kind, 0)} at first")
            return found
        try:
            wait_until(lambda: not leaks(), "descriptors that are given back", 20.0)
        except AssertionError:
            raise Wrong("leaks: " + "; ".join(leaks())) from None

    def check_files(self):
        """No draft is left behind, but for those of daemons that were killed while they wrote."""
        drafts = [os.path.join(where, name) for where, _, names in os.walk(self.world.state)
                  for name in names if re.search(r"tmp|draft", name)]
        kills = sum(what in ("kill_daemon", "deaf", "kill_guard") for _, what in self.faults)
        if len(drafts) > 3 * kills:
            raise Wrong(f"left behind: {drafts}")
        if not any(what == "corrupt" for _, what in self.faults):
            odd = [name for name in os.listdir(os.path.join(self.world.state, "sessions"))
                   if "corrupt" in name]
            if odd:
                raise Wrong(f"records came to be corrupt: {odd}")

    def check_logs(self):
        for which in ("daemon", "guard"):
            text = self.all_logs(which)
            for word in ("Traceback", "act_failed", "circuit_open", "quarantined", "daemon_died_opening"):
                if word in text:
                    at = text.index(word)
                    raise Wrong(f"{which}.log has {word}: {text[max(0, at - 300):at + 2000]}")

    def run(self, steps=None, minutes=None):
        """That many steps, or for so long; then the end."""
        until = None if minutes is None else time.monotonic() + minutes * 60
        while (steps is None or self.steps_taken < steps) and (
                until is None or time.monotonic() < until):
            self.step(self.steps_taken)
            self.steps_taken += 1
        self.finish()
        return self


STEPS = [                   # what, how often
    ("start", 30), ("look", 12), ("log", 10), ("wait", 4), ("attach", 8), ("use_terminal", 16),
    ("detach", 2), ("send", 14), ("resize", 4), ("rename", 3), ("restart", 4), ("kill", 5),
    ("remove", 3), ("ensure_destroyed", 3), ("audit", 2),
    ("kill_daemon", 8), ("kill_guard", 3), ("replace", 4), ("deafen", 1), ("stop_guard", 1),
    ("delete_socket", 3), ("corrupt_record", 4), ("squeeze", 1), ("kill_client", 4),
    ("freeze_client", 3), ("new_program", 2)]
NEEDS_CLIENT = {"start", "look", "log", "wait", "attach", "detach", "send", "resize", "rename",
                "restart", "kill", "remove", "ensure_destroyed", "replace"}


# -- both at once --------------------------------------------------------------------------------

class Both(Chaos):
    """Guard and daemon die at the same moment, again and again."""

    def step(self, number):
        """Sessions; some end; both die; who lived is lost, who had ended is as before."""
        chance = random.Random(f"{self.seed}.both.{number}")
        self.note(f"round {number}")
        for slot in range(SLOTS):
            self.do_start(slot, chance)
            self.await_errands(limit_s=LIMIT_S)
            self.do_attach(slot, chance)
        wait_until(lambda: all(ledger.spawns() and ledger.spawns()[-1].facts
                               for ledger in self.slots), "children in all slots")
        self.calm()
        before = self.listed()
        if chance.random() < 0.5:       # in the middle of things; it may be lost, or begin anew
            self.slots.append(None)
            self.end = "exit:3"
            self.do_start(SLOTS, chance)
            self.end = None
        self.kill_both(chance)
        for ledger in self.slots:
            facts = before.get(ledger.id)
            if not facts or facts["state"] != "ended":
                ledger.was_killed = ledger.may_be_missing = True
                ledger.guard_deaths.append(time.monotonic())
        wait_until(lambda: not [pid for ledger in self.slots[:SLOTS] if ledger.id
                                for pid in marked("PTYGUARD_SESSION_ID=" + ledger.id)],
                   "the end of all that was hung up")
        self.await_errands(lambda errand: True)
        self.check_after(before)
        self.slots = [None] * SLOTS

    def kill_both(self, chance):
        pids = list(self.pids().values())
        chance.shuffle(pids)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)        # neither sees the other's end
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, pids)), "the death of both")
        self.fault("both")
        self.note(f"  {pids} are dead")

    def check_after(self, before):
        listed = self.listed()
        replaced = {ledger.id for ledger in self.ledgers if ledger.name is None}
        for id_, facts in before.items():
            now = listed.get(id_)
            if now is None and id_ in replaced:
                continue
            if now is None:
                raise Wrong(f"{facts['name']} is not told of any more: {facts}")
            if facts["state"] == "ended":
                if (now["state"], now["exit"]) != ("ended", facts["exit"]):
                    raise Wrong(f"{facts['name']} was {facts}, and is {now}")
            elif now["state"] == "lost":
                if now["reason"] != "guard and daemon gone" or now["exit"] != {"code": None, "signal": None}:
                    raise Wrong(f"{facts['name']} is lost, and told as {now}")
            elif now["state"] != "ended":       # it may have ended just before
                raise Wrong(f"{facts['name']} is {now['state']}, and its guard is gone: {now}")
        for ledger in self.ledgers:
            ledger.check_children()
            ledger.check_input()

    def judge_run(self, errand, code):
        self.check_run_output(errand)
        if code != 125:
            errand.ledger.check_code(code, str(errand))

    def finish(self):
        self.calm()
        self.world.run("kill", "--all", check=0)    # a start that was asked again may have come late
        self.world.run("rm", "--ended", check=0)
        if self.listed():
            raise Wrong(f"not removed: {self.listed()}")
        self.check_processes(set(self.pids().values()))
        self.check_descriptors(0)
        pids = self.pids()
        self.world.run("daemon", "stop", "--sessions", "kill", check=0)
        wait_until(lambda: not any(map(is_alive, pids.values())), "the end of guard and daemon")
        self.check_processes(set())
        self.check_logs()
        self.note("all is well")


# -- what the machine tells ----------------------------------------------------------------------

def marked(word):
    """Pids of living processes with that word in their environment."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if word.encode() in file.read().split(b"\0") and is_alive(int(name)):
                    found.append(int(name))
        except OSError:
            continue
    return found


def servants(root):
    """Pids of living guards, daemons and log writers of that directory."""
    found = []
    for name in os.listdir("/proc"):
        words = command_of(name).split(" ")
        if root in words and any(word.startswith("__") for word in words) and is_alive(int(name)):
            found.append(int(name))
    return found


def command_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def descriptors(pid):
    """How many of each kind that process has."""
    counts = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            to = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if to.endswith(".pyz"):         # what it runs from, and for a minute what may be fallen back to
            continue
        kind = "ring" if "ptyguard-ring" in to else "terminal" if to.startswith(("/dev/pt", "/dev/tty")) \
            else to.partition(":")[0] if ":[" in to else to if to.startswith("anon_inode") else "file"
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def build_archive(directory, name, version=None):
    """An archive of this checkout; with another version, if one is wanted."""
    output = os.path.join(directory, name)
    with tempfile.TemporaryDirectory() as staging:
        tree = ROOT
        if version is not None:
            tree = os.path.join(staging, "tree")
            os.mkdir(tree)
            for part in ("ptyguard.py", "ptyguard_posix.py", "ptyguard_win.py", "zipapp.sh", "setup.cfg"):
                shutil.copy(os.path.join(ROOT, part), tree)
            shutil.copytree(os.path.join(ROOT, "ptyguard_core"), os.path.join(tree, "ptyguard_core"),
                            ignore=shutil.ignore_patterns("__pycache__"))
            path = os.path.join(tree, "setup.cfg")
            with open(path) as file:
                text = file.read()
            with open(path, "w") as file:
                file.write(re.sub(r"(?m)^version = .*$", f"version = {version}", text))
        subprocess.run(["sh", os.path.join(tree, "zipapp.sh"), output], check=True,
                       env=dict(os.environ, PYTHON=sys.executable, PYTHONS=""), stdout=subprocess.DEVNULL)
    return output


SCENARIOS = {"one": Chaos, "both": Both}


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--scenario", choices=[*SCENARIOS, "all"], default="all")
    given = parser.parse_args(argv)
    seed = random.randrange(1 << 32) if given.seed is None else given.seed
    names = list(SCENARIOS) if given.scenario == "all" else [given.scenario]
    for name in names:
        print(f"chaos: scenario {name}, seed {seed}", flush=True)
        steps = given.steps
        minutes = given.minutes
        if steps is None and minutes is None:
            steps = 300 if name == "one" else 5
        with SCENARIOS[name](seed) as chaos:
            chaos.run(steps, None if minutes is None else minutes / len(names))
        print(f"chaos: all is well after {chaos.steps_taken} steps, {len(chaos.ledgers)} sessions, "
              f"{chaos.serial} clients; {chaos.counts}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
