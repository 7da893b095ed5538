"""Doctor: what is well, what is not, and what cures it.

Pure: a dict of facts in (survey.py gathers them), a list of findings out.  Each check
is a function of all facts that yields findings; the table at the end names them in the
order in which they are told.  A fact that is None could not be known here, and is no
reason for a finding; `_system` says which those are.

WARN is what may hurt one day or hurts a little, FAIL is what keeps ptyguard from
working now or loses something soon.
"""

from collections import namedtuple

from .errors import PtyguardError
from .report import shell_words
from .version import compare

PASS, WARN, FAIL = LEVELS = ("PASS", "WARN", "FAIL")

# `text` names the object and says what is the case; `cure` is what to do, "" for nothing.
Finding = namedtuple("Finding", "level subject text cure")

_MIB = 1 << 20
FREE_BYTES_LOW = 64 * _MIB     # logs may grow to 40 MiB
FREE_BYTES_LEAST = _MIB        # a session wants a record, an upgrade a copy of the program
FREE_FILES_LOW = 200
# A session costs the guard three descriptors: terminal (two) and ring.
DESCRIPTORS_LOW = 3 * 100
DESCRIPTORS_LEAST = 48         # what the guard keeps in reserve for its next daemon
DESCRIPTORS_MODEST = 1024
TERMINALS_LOW = 32
SHARED_MEMORY_LOW = 16 * _MIB  # Docker gives /dev/shm 64 MiB, and a ring is all there at once

_OPEN_FILES = "max open files"
_MORE = "ptyguard daemon stop (once no session lives), then start it from here"
_LONGER = ("once no session lives: ptyguard daemon stop, then start it where it lives longer: ptyguard start "
           "--survive-logout (systemd), `@reboot ptyguard daemon start` in cron, or ptyguard daemon unit")


def examine(facts):
    """All findings about these facts, in the order of the checks."""
    return [finding for check in CHECKS for finding in check(facts)
            if facts["is_reachable"] or check not in _OF_OUR_OWN]


def worst(findings):
    """The gravest level among them."""
    return max((finding.level for finding in findings), key=LEVELS.index, default=PASS)


# -- directories and files -----------------------------------------------------------------

_NO_DIRECTORY = {"link": "is a symbolic link", "file": "is not a directory",
                 "socket": "is not a directory", "other": "is not a directory"}


def _directory(facts):
    if facts.get("refusal"):
        yield Finding(FAIL, "directory", *facts["refusal"])
        return
    found = [_look_at_directory(directory, facts["uid"]) for directory in facts["directories"]]
    yield from (finding for finding in found if finding is not None)
    if not any(found):
        root = facts["directories"][0]
        yield Finding(PASS, "directory", f"{root['path']} is yours alone" if root["kind"]
                      == "directory" else f"{root['path']} is made by the first start", "")


def _look_at_directory(directory, uid):
    """What is wrong with it, or None."""
    path, kind = directory["path"], directory["kind"]
    if kind == "missing":
        if directory["is_root"] and not directory["can_be_made"]:
            return Finding(FAIL, "directory", f"{path} cannot be made: {directory['above']} "
                           "is no directory that you can write", "set PTYGUARD_DIR to one that you can")
        return None
    if kind == "unknown":
        return Finding(FAIL, "directory", f"{path} cannot be looked at: {directory['error']}",
                       "set PTYGUARD_DIR to a directory of yours")
    if kind != "directory":
        return Finding(FAIL, "directory", f"{path} {_NO_DIRECTORY[kind]}",
                       "move it away, or set PTYGUARD_DIR to a directory of yours")
    if directory["uid"] != uid:
        return Finding(FAIL, "directory", f"{path} belongs to uid {directory['uid']}, not to you ({uid})",
                       "set PTYGUARD_DIR to a directory of yours")
    if directory["mode"] & 0o077:
        return Finding(FAIL, "directory", f"{path} is open to others (mode {directory['mode']:04o})",
                       "if nobody has meddled with what is in it: " + shell_words(["chmod", "700", path]))
    if not directory["is_writable"]:
        is_open_to_us = directory["mode"] & 0o300 == 0o300
        return Finding(FAIL, "directory", f"{path} cannot be written by you (mode "
                       f"{directory['mode']:04o})", "see `disk`" if is_open_to_us
                       else shell_words(["chmod", "700", path]))
    return None


def _files(facts):
    """What stands in our directories and was not made by us so."""
    wrong = [finding for finding in (_look_at_file(file, facts["uid"]) for file in facts["files"])
             if finding is not None]
    yield from wrong
    if facts["files"] and not wrong:
        count = len(facts["files"])
        yield Finding(PASS, "files", f"{count} file{'s' * (count > 1)}, all yours alone", "")


def _look_at_file(file, uid):
    path = file["path"]
    # Without the former nothing starts; of the latter each is set aside, or rewritten.
    level = FAIL if file["is_needed"] else WARN
    if file["kind"] not in ("file", "socket", "agent link"):
        return Finding(level, "files", f"{path} is neither a file nor a socket", f"move {path} away")
    if file["uid"] != uid:
        return Finding(level, "files", f"{path} belongs to uid {file['uid']}, not to you ({uid})",
                       "remove it, or have it given back: " + shell_words(["chown", str(uid), path]))
    if file["mode"] & 0o077:
        return Finding(WARN, "files", f"{path} is open to others (mode {file['mode']:04o})",
                       shell_words(["chmod", "600", path]))
    return None


def _disk(facts):
    disk = facts["disk"]
    if disk is None:
        return
    path, free, files = disk["path"], disk["free_bytes"], disk["free_files"]
    if disk["is_read_only"]:
        yield Finding(FAIL, "disk", f"{path} is on a read-only file system",
                      "set PTYGUARD_DIR to one that can be written")
    elif free < FREE_BYTES_LEAST or files is not None and files < 1:
        yield Finding(FAIL, "disk", f"{path}: the disk is full ({_size(free)} free)",
                      "free some space: no new session can be recorded")
    elif free < FREE_BYTES_LOW or files is not None and files < FREE_FILES_LOW:
        yield Finding(WARN, "disk", f"{path}: {_size(free)} free" + (
            f", room for {files} files" if files is not None else ""), "free some space")
    else:
        yield Finding(PASS, "disk", f"{_size(free)} free on {disk['type'] or 'the file system'}", "")
    if disk["is_network"] and not facts["place"]["is_elsewhere"]:
        yield Finding(WARN, "disk", f"{path} is on a network file system ({disk['type']}), sockets and "
                      "locks with it", "set PTYGUARD_DIR to a directory of this host")


def _size(count):
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= scale:
            return f"{count // scale} {unit}"
    return f"{count} bytes"


def _place(facts):
    """Where sockets and locks are, if not beside the records."""
    place = facts["place"]
    if place["is_unreadable"]:
        yield Finding(FAIL, "place", f"{place['file']} does not name a directory for sockets",
                      "while no session runs: " + shell_words(["rm", place["file"]]))
    age = place["cleaning_age"]
    if not place["is_elsewhere"] and not (age and facts["guard"]):
        return
    if age and facts["guard"] and not place["is_locked"]:
        yield Finding(WARN, "place", f"{place['path']} (sockets and locks) is not locked against the "
                      f"cleaner, which removes what is {age} old",
                      "ptyguard daemon stop (once no session lives): the next guard locks it; or set "
                      "PTYGUARD_DIR to a shorter path")
    else:
        yield Finding(PASS, "place", f"sockets and locks are in {place['path']}" + (
            ", locked against the cleaner" if age and facts["guard"] else ""), "")


def _settings(facts):
    for variable, value in sorted(facts["settings"].items()):
        if variable == "PTYGUARD_SCOPE":
            if value != "systemd":
                yield Finding(FAIL, "settings", f"{variable} is {value!r}: no start with that",
                              f"unset {variable}, or make it systemd")
        elif not value.replace(".", "", 1).isdigit():
            yield Finding(FAIL, "settings", f"{variable} is {value!r}: no start with that",
                          f"give it a number, or: unset {variable}")


# -- guard, daemon and what they hold --------------------------------------------------------

def _guard(facts):
    guard, daemon = facts["guard"], facts["daemon"]
    if guard is None:
        if daemon is None:
            yield Finding(PASS, "guard", "none runs; the first command that needs one starts it", "")
        else:
            yield Finding(WARN, "guard", "it has died; the daemon serves on and sets up a new one",
                          "look again in a moment; if there is none then: ptyguard daemon log")
    elif guard["is_silent"]:
        yield _silent("guard", guard, "end it only if its sessions may end too: "
                      f"they live by it; what it wrote: {guard['log']}")
    elif guard["error"]:
        yield Finding(WARN, "guard", f"pid {guard['pid']}: {guard['error']}",
                      "the next command has it make its sockets again")
    elif guard["state"] == "circuit-open":
        yield Finding(FAIL, "guard", f"its daemons keep dying: {guard['reason']}",
                      "ptyguard daemon log says why; mend that, then: ptyguard daemon restart")
    else:
        yield Finding(PASS, "guard", f"pid {guard['pid']}, version {guard['version']}"
                      + _age_of(guard["version"], facts["version"], "; it serves newer daemons too"), "")
    # The guard remembers it when one that it started later serves.
    if guard and guard.get("last_failure") and guard["state"] != "serving":
        yield Finding(WARN, "guard", f"the last start of a daemon failed: {guard['last_failure']}",
                      "mend the cause, then: ptyguard daemon restart")


def _strays(facts):
    """Guards that live and that nobody finds: their directory was removed or replaced."""
    for stray in facts["strays"]:
        pids = " ".join(map(str, [*stray["daemons"], stray["pid"]]))
        yield Finding(WARN, "strays", f"pid {stray['pid']} is a guard of {facts['directories'][0]['path']} too, "
                      "and nobody can reach it: its directory was removed or replaced",
                      "put that back while nothing else runs, or end it and what lives by it: "
                      f"kill -9 {pids}")


def _silent(subject, process, cure):
    pid, who = process["pid"], f"pid {process['pid']}" if process["pid"] else "whoever listens there"
    if is_stopped(process["confinement"]):
        return Finding(FAIL, subject, f"pid {pid} is stopped", f"kill -CONT {pid}")
    return Finding(FAIL, subject, f"{who} does not answer: {process['error']}", cure)


def is_stopped(confinement):
    """Whether that process waits for SIGCONT, or for its debugger (proc(5))."""
    return confinement.get("state") in ("T", "t")


def _age_of(theirs, ours, words):
    return f" (older than this program{words})" if _order(theirs, ours) < 0 else ""


def _order(a, b):
    try:
        return compare(a, b)
    except PtyguardError:
        return 0                        # a version that cannot be read is told as it is


# What the guard says of a daemon that does not serve -> what that means.
_NO_DAEMON = {
    "dead": (PASS, "none runs; the next command starts one"),
    "stopped": (PASS, "stopped; the next command starts one, sessions live on"),
    "stopping": (PASS, "the guard is on its way out"),
    "starting": (WARN, "it is starting"), "ready": (WARN, "it is about to serve"),
    "quiescing": (WARN, "it is being replaced"), "leaving": (WARN, "it is leaving"),
    "depositing": (WARN, "it serves, and hands over to a new guard"),
}


def _daemon(facts):
    daemon, guard = facts["daemon"], facts["guard"]
    if daemon is None:
        if guard is not None and guard["state"] in _NO_DAEMON:
            level, text = _NO_DAEMON[guard["state"]]
            yield Finding(level, "daemon", text, "" if level == PASS else "look again in a moment")
    elif daemon["error"]:
        yield _silent("daemon", daemon, "ptyguard ls: a client that is not answered has it replaced, "
                                        "sessions live on")
    elif _order(daemon["version"], facts["version"]) < 0:
        yield Finding(WARN, "daemon", f"pid {daemon['pid']} is of version {daemon['version']}, "
                      f"this program of {facts['version']}", "ptyguard daemon restart (sessions live on)")
    else:
        newer = _order(daemon["version"], facts["version"]) > 0
        yield Finding(PASS, "daemon", f"pid {daemon['pid']}, version {daemon['version']}"
                      + (", newer than this program" if newer else ""), "")


def _sockets(facts):
    """Whether they are there; that somebody answers is what `guard` and `daemon` tell."""
    guard, daemon = facts["guard"], facts["daemon"]
    found = [_look_at_socket(socket, bool(guard or daemon)) for socket in facts["sockets"]
             if not _is_told_of(socket["name"], guard, daemon)]
    yield from (finding for finding in found if finding is not None)
    if not any(found):
        yield Finding(PASS, "sockets", "in their places" if guard or daemon
                      else "none is left over", "")


def _is_told_of(name, guard, daemon):
    """Whether another finding says already that this socket is missing, or dead."""
    if name == "client.sock":           # closed on purpose: an error at once, not silence
        return guard is not None and guard["state"] == "circuit-open"
    return guard is None and daemon is not None or guard is not None and bool(guard["error"])


def _look_at_socket(socket, is_living):
    """What is wrong with it, or None."""
    path, kind = socket["path"], socket["kind"]
    if kind not in ("socket", "missing", "unknown"):
        return Finding(FAIL, "sockets", f"{path} is in the way and is no socket",
                       f"move {path} away")
    if kind == "socket" and not is_living:
        return Finding(WARN, "sockets", f"{path} is left over: nobody is behind it",
                       "none needed: the next start replaces it")
    if kind == "missing" and is_living:
        return Finding(WARN, "sockets", f"{path} is gone (a cleaner, perhaps)",
                       "none needed: the next command has it made again")
    return None


def _locks(facts):
    held = [lock for lock in facts["locks"] if lock["is_held"]]
    wrong = [finding for finding in map(_look_at_lock, facts["locks"]) if finding is not None]
    names = [lock["name"] for lock in held]
    if facts["guard"] and facts["guard"]["state"] == "serving" and "daemon.lock" not in names:
        wrong.append(Finding(WARN, "locks", "a daemon serves and does not hold daemon.lock",
                             "look again; if it stays so: ptyguard daemon restart"))
    yield from wrong
    if not wrong:
        yield Finding(PASS, "locks", ", ".join(
            f"{lock['name']} is held by pid {lock['pid']} ({_purpose(lock['words'])})"
            for lock in held) or "nobody holds one", "")


def _purpose(words):
    """What for and since when, of what a holder wrote into its lock."""
    return words.partition(", ")[2]


def _look_at_lock(lock):
    """What is wrong with it, or None."""
    path, pid, pids = lock["path"], lock["pid"], lock["pids"]
    if lock["error"]:
        return Finding(FAIL, "locks", f"{path} cannot be looked at: {lock['error']}",
                       "see `directory` and `files`")
    if not lock["is_held"]:
        return None
    if pids and pid not in pids:
        return Finding(WARN, "locks", f"{path} is held by pid {pids[0]}, and not by whom it names "
                       f"({lock['words'] or 'nobody'})", f"look at that process: ps -fp {pids[0]}")
    if not lock["is_alive"]:
        return Finding(FAIL, "locks", f"{path} is held, though whom it names is gone "
                       f"({lock['words'] or 'nobody'})",
                       "find who has it open, and end that: " + shell_words(["fuser", "-v", path]))
    if lock["name"] == "start.lock":
        return Finding(WARN, "locks", f"{path} is held by {lock['words']}: nothing starts meanwhile",
                       f"wait; if it is stuck: ps -fp {pid}, then kill {pid}")
    return None


# -- limits ----------------------------------------------------------------------------------

def _limits(facts):
    is_known = False
    for role in ("guard", "daemon"):
        process = facts[role]
        limits = process["confinement"].get("limits") if process else None
        if limits and process["confinement"]["files"] is not None:
            is_known = True
            yield _descriptors(role, process["confinement"])
    ours = facts["confinement"].get("limits", {})
    if facts["guard"]:
        yield from _lower_limits(facts["guard"]["confinement"].get("limits") or {}, ours)
    elif not is_known and _OPEN_FILES in ours:
        hard = ours[_OPEN_FILES][1]
        room = f"room for about {(hard - DESCRIPTORS_LEAST) // 3:g} sessions" \
            if hard != float("inf") else "no limit to sessions"
        if hard < DESCRIPTORS_MODEST:
            yield Finding(WARN, "limits", f"{hard} descriptors: {room}",
                          "raise the hard limit: ulimit -Hn, /etc/security/limits.conf")
        else:
            yield Finding(PASS, "limits", f"{_limit(hard)} descriptors: {room}", "")


def _limit(number):
    return "unlimited" if number == float("inf") else f"{number}"


def _descriptors(role, confinement):
    used, soft = len(confinement["files"]), confinement["limits"].get(_OPEN_FILES, (float("inf"),))[0]
    text = f"the {role} uses {used} of {_limit(soft)} descriptors"
    cure = "end or remove sessions (ptyguard rm --ended), or start the guard with a higher limit"
    if soft - used < DESCRIPTORS_LEAST:
        return Finding(FAIL, "limits", text, cure)
    return Finding(WARN if soft - used < DESCRIPTORS_LOW else PASS, "limits", text,
                   cure if soft - used < DESCRIPTORS_LOW else "")


def _lower_limits(theirs, ours):
    """Soft limits travel with a session, and go no higher than the guard's hard ones."""
    lower = [f"{name} {_limit(theirs[name][1])} (here {_limit(ours[name][1])})"
             for name in sorted(theirs) if name in ours and theirs[name][1] < ours[name][1]]
    if lower:
        yield Finding(WARN, "limits", "sessions get less than you have: " + ", ".join(lower), _MORE)


def _terminals(facts):
    supply = facts["terminals"]
    used, limit = supply["used"], supply["limit"]
    counts = f"{used} of {limit} are in use" if None not in (used, limit) else ""
    raise_it = "end what holds them, or, as root: sysctl kernel.pty.max=N"
    if supply["error"]:
        yield Finding(FAIL, "PTYs", f"none can be opened: {supply['error']}" + (
            f"; {counts}" if counts else ""), raise_it + "; is /dev/pts mounted?")
    elif counts:
        is_low = limit - used < TERMINALS_LOW
        yield Finding(WARN if is_low else PASS, "PTYs", counts, raise_it if is_low else "")
    else:
        yield Finding(PASS, "PTYs", "one can be opened", "")


def _memory(facts):
    """What rings are made of: memory that a full disk cannot hurt, or something less."""
    kind, shared = facts["memory"], facts["shared_memory"]
    if kind == "file":
        yield Finding(WARN, "memory", "output is kept in unlinked files on a disk: slow, and it ends "
                      "up on that disk", "a kernel with memfd_create, or a /dev/shm that can be written")
    elif kind == "shared memory" and shared and shared["free_bytes"] < SHARED_MEMORY_LOW:
        yield Finding(WARN, "memory", f"output is kept in /dev/shm, of which {_size(shared['free_bytes'])} "
                      "are free", "a larger one (docker run --shm-size), or smaller --scrollback")
    elif kind:
        yield Finding(PASS, "memory", f"output is kept in {kind}", "")


# -- the guard's place in the system, and ours -----------------------------------------------

def _cgroup(facts):
    """C-304: sessions share the limits and the fate of the guard's control group."""
    ours = facts["confinement"].get("cgroups")
    theirs = facts["guard"]["confinement"].get("cgroups") if facts["guard"] else None
    if not ours or not theirs:
        return
    differ = [f"{name + ':' if name else ''}{theirs[name]} (you: {ours.get(name, '-')})"
              for name in sorted(theirs) if theirs[name] != ours.get(name)]
    if not differ:
        yield Finding(PASS, "cgroup", f"the guard is in yours, {managed_group(theirs)}", "")
    elif {unit_of(managed_group(group))[0] for group in (ours, theirs)} <= {LOGIN, USER_MANAGER} \
            and len(differ) == 1:
        yield Finding(PASS, "cgroup", f"the guard is in {differ[0]}, another login of yours", "")
    else:
        yield Finding(WARN, "cgroup", f"the guard is in {', '.join(differ)}: sessions share its limits, "
                      "and end with it", f"if that is not wanted: {_MORE}")


def managed_group(cgroups):
    """The path that the service manager goes by, of {controllers: path}."""
    named = cgroups.get("name=systemd", "/")
    return named if named != "/" else cgroups.get("", "/")


LOGIN, USER_MANAGER, USER_SERVICE, SERVICE, SCOPE, CONTAINER, NO_UNIT = (
    "login", "user manager", "user service", "service", "scope", "container", "no unit")
_CONTAINERS = ("docker", "libpod", "crio", "cri-containerd", "kubepods", "lxc", "machine", "buildkit")


def unit_of(path):
    """(kind, name) of the unit that ends what is in the control group `path`."""
    parts = [part for part in path.split("/") if part]
    if any(part.startswith(_CONTAINERS) for part in parts):
        return CONTAINER, ""
    units = [part for part in parts if part.endswith((".service", ".scope")) and part != "init.scope"]
    if not units:
        return NO_UNIT, ""
    name = units[-1]
    if units[0].startswith("user@"):
        is_inner = name.endswith(".service") and not name.startswith(("user@", "ptyguard"))
        return USER_SERVICE if is_inner else USER_MANAGER, name
    if name.startswith("session-"):
        return LOGIN, name
    # A unit made for us ends when it is asked to, which is its purpose.
    is_own = name.endswith(".scope") or name.startswith("ptyguard")
    return SCOPE if is_own else SERVICE, name


def _logout(facts):
    """What ends the guard that need not be meant for it: a logout, a service's stop, a job's end."""
    guard = facts["guard"]
    cgroups = (guard["confinement"] if guard else facts["confinement"]).get("cgroups")
    if cgroups is None:
        return
    subject = "the guard is in" if guard else "a guard started from here would be in"
    job = facts["job"] if not guard or cgroups == facts["confinement"].get("cgroups") else None
    if job:
        yield Finding(WARN, "logout", f"{subject} a CI job ({job} is set): runners end what a job leaves",
                      _LONGER)
    else:
        yield fate_of(cgroups, facts["logout"], subject)


def fate_of(cgroups, logout, subject):
    """What a logout does to who is in these control groups; `subject`: "the guard is in"."""
    kind, name = unit_of(managed_group(cgroups))
    if not logout["has_manager"]:
        return Finding(PASS, "logout", "no systemd here that would end what a login leaves", "")
    return Finding(*_FATES[kind](logout, f"{subject} {name or 'no unit'}"))


def _fate_of_login(logout, text):
    kills = kills_leftovers(logout["logind"], logout["user"])
    if kills is False:
        return PASS, "logout", f"{text}; a logout leaves it alone (KillUserProcesses)", ""
    why = "KillUserProcesses=yes ends it at logout" if kills \
        else "logind.conf does not say whether a logout ends it (KillUserProcesses)"
    return WARN, "logout", f"{text}: {why}", f"{_LONGER}; or KillExcludeUsers={logout['user']} there"


def _fate_of_user_manager(logout, text):
    if logout["lingers"]:
        return PASS, "logout", f"{text}; the user manager stays (linger)", ""
    return (WARN, "logout", f"{text}: your user manager ends with your last login, and that with it",
            f"loginctl enable-linger {logout['user']}")


def _fate_of_user_service(_logout, text):
    return WARN, "logout", f"{text}: it ends when that is stopped", _LONGER


def _fate_of_service(logout, text):
    mode = settings_in(logout["unit"], "Service").get("KillMode", "control-group")
    if mode in ("process", "none"):
        return PASS, "logout", f"{text}, whose end leaves it alone (KillMode={mode})", ""
    return WARN, "logout", f"{text}: it ends when that is stopped (KillMode={mode})", _LONGER


def _fate_of_none(_logout, text):
    return PASS, "logout", f"{text}: no logout ends it", ""


def _fate_of_container(_logout, _text):
    return PASS, "logout", "the guard lives as long as this container", ""


_FATES = {LOGIN: _fate_of_login, USER_MANAGER: _fate_of_user_manager,
          USER_SERVICE: _fate_of_user_service, SERVICE: _fate_of_service, SCOPE: _fate_of_none,
          CONTAINER: _fate_of_container, NO_UNIT: _fate_of_none}


def kills_leftovers(texts, user):
    """Whether a logout of `user` ends what it leaves, by logind.conf(5); None: not told."""
    settings = settings_in(texts, "Login")
    # The file as it is shipped shows in comments what systemd was compiled with.
    shipped = next((line.partition("=")[2] for text in texts[:1] for line in text.splitlines()
                    if line.startswith("#KillUserProcesses=")), None)
    if user in settings.get("KillExcludeUsers", "root").split():
        return False
    only = settings.get("KillOnlyUsers", "").split()
    if only:
        return user in only
    word = settings.get("KillUserProcesses") or shipped
    return None if word is None else word.lower() in ("yes", "true", "on", "1", "y", "t")


def settings_in(texts, section):
    """{key: value} of one section, the last word counting; lists grow until an empty value."""
    found, current = {}, ""
    for line in (line.strip() for text in texts for line in text.splitlines()):
        if line.startswith("["):
            current = line.strip("[]")
        elif current == section and line and line[0] not in "#;" and "=" in line:
            key, value = (word.strip() for word in line.split("=", 1))
            is_list = key in ("KillExcludeUsers", "KillOnlyUsers")
            found[key] = f"{found.get(key, '')} {value}".strip() if is_list and value else value
    return found


def _privileges(facts):
    """C-304: NoNewPrivs, and other things that nobody can shed again."""
    guard = facts["guard"]
    if not guard or not guard["confinement"] or not facts["confinement"]:
        return
    theirs, ours, differ = guard["confinement"], facts["confinement"], []
    if theirs["no_new_privs"] and not ours["no_new_privs"]:
        differ.append("it has NoNewPrivs: sudo does not work in sessions")
    if theirs["seccomp"] and not ours["seccomp"]:
        differ.append("system calls are filtered for it (seccomp), and so in sessions")
    if None not in (theirs["mounts"], ours["mounts"]) and theirs["mounts"] != ours["mounts"]:
        differ.append("it sees other mounts than you do: another /tmp, perhaps")
    for text in differ:
        yield Finding(WARN, "privileges", f"guard, pid {guard['pid']}: {text}", _MORE)
    if not differ:
        yield Finding(PASS, "privileges", "the guard's are no less than yours", "")


def _groups(facts):
    """C-304: who has joined a group since has it in new logins, not in the guard."""
    guard = facts["guard"]
    if not guard or not guard["confinement"] or not facts["confinement"]:
        return
    theirs, ours = set(guard["confinement"]["groups"]), set(facts["confinement"]["groups"])
    if theirs == ours:
        yield Finding(PASS, "groups", "the guard's are yours", "")
        return
    lacks, has = (", ".join(facts["group_names"].get(number, str(number)) for number in sorted(group))
                  for group in (ours - theirs, theirs - ours))
    yield Finding(WARN, "groups", " and ".join(filter(None, (
        f"sessions lack your groups {lacks}" if lacks else "",
        f"sessions have groups that you have not: {has}" if has else ""))), _MORE)


# -- what we run on and from -------------------------------------------------------------------

def _python(facts):
    python, guard = facts["python"], facts["guard"]
    if python["missing"]:
        yield Finding(FAIL, "python", f"{python['executable']} lacks {', '.join(python['missing'])}",
                      "install the full python3 package")
    elif python["is_usable"] is False:
        yield Finding(WARN if guard else FAIL, "python", f"{python['base']} does not work for guard and "
                      "daemon" + (" (of a virtual environment)" if python["in_venv"] else ""),
                      "install python3, 3.8 or newer, with its standard library")
    else:
        venv = f"; guard and daemon run on {python['base']}, outside the virtual environment" \
            if python["in_venv"] else ""
        yield Finding(PASS, "python", f"{python['version']}, {python['executable']}{venv}", "")
    if guard and guard.get("has_interpreter") is False:
        yield Finding(FAIL, "python", f"{guard['interpreter']}, which the next daemon is to run on, is gone",
                      "ptyguard daemon restart, while this one lives")


def _binaries(facts):
    """Private copies: those that run must be there, those that nobody runs need not."""
    guard = facts["guard"]
    if guard and guard.get("has_binary") is False:
        restorable = guard["holds_binary"]
        yield Finding(WARN if restorable else FAIL, "binaries",
                      f"{guard['binary']}, which the next daemon is to run from, is gone"
                      + ("; the guard writes it again" if restorable else ""),
                      "ptyguard daemon restart makes it anew")
    daemon = facts["daemon"]
    is_other = bool(daemon) and daemon["is_ours"] is False \
        and _order(daemon["version"], facts["version"]) == 0
    if is_other:
        yield Finding(WARN, "binaries", f"the daemon, pid {daemon['pid']}, runs another build of "
                      f"{daemon['version']} than this program: {daemon['binary']}",
                      "ptyguard daemon restart (sessions live on)")
    stale = [copy for copy in facts["copies"] if copy["is_held"] is False and not copy["is_ours"]
             and not (guard and copy["path"] == guard.get("binary"))]
    if stale:
        yield Finding(WARN, "binaries", f"{len(stale)} old cop{'ies' if len(stale) > 1 else 'y'} "
                      f"that nobody runs from ({_size(sum(copy['bytes'] for copy in stale))})",
                      shell_words(["rm"] + [copy["path"] for copy in stale]))
    elif not is_other and (not guard or guard.get("has_binary") is not False):
        yield Finding(PASS, "binaries", "nothing is stale" if facts["copies"]
                      else "no private copy yet: the first start makes it", "")


def _records(facts):
    if facts["corrupt"]:
        count = len(facts["corrupt"])
        yield Finding(WARN, "records", f"{count} unreadable record{'s' * (count > 1)} set aside",
                      "look, then: " + shell_words(["rm"] + facts["corrupt"]))


def _system(facts):
    if facts["unknown"]:
        yield Finding(WARN, "system", f"not known here: {', '.join(facts['unknown'])}", "")


CHECKS = (_directory, _files, _disk, _place, _settings, _guard, _strays, _daemon, _sockets, _locks, _limits,
          _terminals, _memory, _cgroup, _privileges, _groups, _logout, _python, _binaries, _records,
          _system)
# What cannot be told while the way to it is barred: a guard may run, or not.
_OF_OUR_OWN = (_guard, _strays, _daemon, _sockets, _locks, _binaries)
