"""Scope: a guard that is to outlive the login gets a unit of the user's service manager.

systemd-logind may end what a login leaves (KillUserProcesses).  It goes by the control
group, which neither fork nor setsid leaves.  `systemd-run --user --scope` asks the user's
own manager for a new group, enters it and becomes the command, descriptors and all
(systemd-run(1)): here the command is the guard.

Rule 1: an extra, never the only way.  What is not there, fails or hangs is told in one
        line, and the guard is started the plain way.
Rule 2: no worse than without.  The user manager ends with the last login of who does not
        linger; a place that a logout leaves alone is better than that.  Whoever names the
        scope itself (PTYGUARD_SCOPE) gets it all the same, and is told.
Rule 3: only a guard that has to be started can be put anywhere.  Of one that runs already it
        is said that nothing has changed.

What is not handled: a guard that a daemon starts after the death of the former; it is where
that daemon is, which is the scope as well.
"""

import os

from .doctor import PASS, USER_MANAGER, fate_of, managed_group, unit_of
from .errors import UsageError

OPTION, VARIABLE, SYSTEMD = "--survive-logout", "PTYGUARD_SCOPE", "systemd"

ELSEWHERE = "what lives longer: `@reboot ptyguard daemon start` in cron"
ANOTHER_GUARD = "once no session lives: ptyguard daemon stop, then this again"


def decide(facts):
    """(whether to ask for a scope, why not); `facts` as `Scope` gathers them."""
    if not facts["bus"]:
        return False, "your systemd user manager cannot be asked: it has no bus" \
            if facts["logout"]["has_manager"] else "no systemd runs here that would end what a login leaves"
    if not facts["program"]:
        return False, "systemd-run is not installed"
    is_better_off = facts["logout"]["has_manager"] and not facts["logout"]["lingers"] \
        and facts["fate"] and facts["fate"].level == PASS
    if is_better_off and not facts["is_named"]:
        return False, "a scope would end with your last login, as you do not linger"
    return True, ""


def command(facts, argv, environment):
    """(argv, environment) that put `argv` into a scope; it itself gets `environment` alone."""
    words = [facts["program"], "--user", "--scope", "--collect", "--quiet",
             "--description=ptyguard: guard, daemon and sessions", "--",
             # What the way there needs or sets (XDG_RUNTIME_DIR, INVOCATION_ID) ends here.
             "/usr/bin/env", "-i", *(f"{name}={value}" for name, value in sorted(environment.items()))]
    return words + argv, dict(environment, XDG_RUNTIME_DIR=os.path.dirname(facts["bus"]))


class Scope:
    """The wish for a scope, and what came of it in words.

    `note(text)`: where they go; None: nowhere but into the guard's log.
    """

    def __init__(self, backend, value, is_asked, note=None):
        """`value`: PTYGUARD_SCOPE's; `is_asked`: by the option."""
        self._backend = backend
        self._value = value
        self._is_asked = is_asked
        self._note = note or (lambda text: None)
        self._facts = None              # of the guard that was started by us

    # -- for whoever starts a guard --------------------------------------------------------

    def wrap(self, argv, environment):
        """(argv, environment) of a guard in a scope; None, and it is said why, for the plain way."""
        if self._value not in ("", SYSTEMD):
            raise UsageError(f"{VARIABLE} is {self._value[:40]!r}", hint=f"it takes {SYSTEMD}, or nothing")
        self._facts = self._gather(os.getpid())
        is_wanted, why_not = decide(self._facts)
        if not is_wanted:
            self.failed(why_not)
            return None
        return command(self._facts, argv, environment)

    def is_on_its_way(self, pid):
        """Whether that process has not become the guard yet."""
        return self._facts["program"] in self._backend.process_facts(pid).get("argv", ())

    def worked(self):
        """The guard runs, in its scope."""
        logout = self._facts["logout"]
        if logout["has_manager"] and not logout["lingers"]:
            self._tell("the guard is in a scope of your user manager, which ends with your last login "
                       f"(loginctl enable-linger {logout['user']})")

    def failed(self, why):
        """It is started the plain way."""
        fate = self._facts["fate"] if self._facts["logout"]["has_manager"] else None
        if fate and fate.level != PASS and self._facts["kind"] != USER_MANAGER:
            fate = fate._replace(cure=ELSEWHERE)        # its own cure may be what was just tried
        self._tell(f"{why}; the guard is started the plain way{_after(fate)}")

    # -- for whoever finds one ---------------------------------------------------------------

    def judge(self, pid):
        """Say it where the guard `pid` ran before, and is not where it is wanted."""
        if self._facts is not None or not pid:
            return
        facts = self._gather(pid)
        fate = facts["fate"]
        is_well = fate is None or fate.level == PASS
        if facts["kind"] == USER_MANAGER:
            if not is_well:
                self._tell(f"the guard runs already (pid {pid}){_after(fate)}")
        elif self._is_asked or not is_well:
            cure = "" if is_well else f" ({ANOTHER_GUARD})"
            self._tell(f"no effect on the guard, which runs already (pid {pid})"
                       + _after(fate and fate._replace(cure="")) + cure)

    def _tell(self, text):
        self._note(f"{OPTION if self._is_asked else f'{VARIABLE}={SYSTEMD}'}: {text}")

    def _gather(self, pid):
        """Where that process is, what becomes of it at a logout, and the way to a scope."""
        backend = self._backend
        cgroups = backend.process_confinement(pid).get("cgroups")
        kind, unit = unit_of(managed_group(cgroups or {}))
        logout = dict(backend.logout_facts(), logind=backend.manager_texts("logind.conf"),
                      unit=backend.manager_texts(unit) if unit else [])
        fate = None if cgroups is None else fate_of(cgroups, logout, "it is in")
        return {"program": backend.find_program("systemd-run"), "bus": backend.user_bus(),
                "is_named": not self._is_asked, "kind": kind, "fate": fate, "logout": logout}


def _after(fate):
    """That finding as the end of a sentence."""
    if fate is None:
        return ""
    return f": {fate.text}" + (f" ({fate.cure})" if fate.cure else "")
