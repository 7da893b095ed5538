"""Report: facts as text for people.  Pure: dicts in, lines out.

Whatever a session's command, title or path holds, nothing here reaches the user's
terminal as a control sequence: all of it goes through `printable`.
"""


def printable(text):
    """`text` on one line, what a terminal would act on escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def printable_lines(text):
    """The same for a message that has lines."""
    return "\n".join(printable(line) for line in str(text).split("\n"))


def shell_words(argv):
    """A command as one would type it."""
    def quote(word):
        plain = word and all(c.isalnum() or c in "-_./=:,+@%^" for c in word)
        return word if plain else "'" + word.replace("'", "'\\''") + "'"
    return printable(" ".join(quote(word) for word in argv or ()))


def age(seconds):
    """12s, 5m, 3h, 4d: what fits a column."""
    seconds = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def exit_text(exit_, is_living=False):
    """`exit 3`, `killed by SIGKILL`, `unknown`, or nothing while it lives."""
    if exit_.get("signal"):
        return f"killed by {printable(exit_['signal'])}"
    if exit_.get("code") is not None:
        return f"exit {exit_['code']}"
    return "" if is_living else "unknown"


SCHEMA_VERSION = 1             # of what is told as JSON

LIVING = ("starting", "running", "draining", "quarantined")


# Modes whose name and value do not read by themselves.
_MODE_WORDS = {
    "autowrap": "no autowrap",
    "cursor_visible": "hidden cursor",
    "cursor_blink": "blinking cursor",
    "keyboard_flags": "kitty keyboard {}",
    "modify_other_keys": "modifyOtherKeys {}",
    "mouse": "mouse {}",
    "mouse_encoding": "mouse encoding {}",
}


def mode_words(modes):
    """What a program has switched on, in words: `alternate screen, mouse any (sgr)`."""
    modes = dict(modes)
    if "mouse" in modes and "mouse_encoding" in modes:
        modes["mouse"] = f"{modes['mouse']} ({modes.pop('mouse_encoding')})"
    return ", ".join(_MODE_WORDS.get(name, name.replace("_", " ")).format(value)
                     for name, value in modes.items())


def session_sheet(facts, now):
    """The lines of `info`."""
    size = facts["size"] or {"cols": 0, "rows": 0}
    offsets = facts["offsets"]
    foreground = facts.get("foreground") or {}
    busy = "no"
    if foreground.get("busy"):
        busy = f"yes: {foreground.get('command') or foreground['pid']}"
    ring = facts.get("ring")
    pairs = [
        ("name", facts["name"]), ("id", "@" + facts["id"]), ("state", facts["state"]),
        ("exit", exit_text(facts["exit"], facts["state"] in LIVING) or "-"),
        ("pid", facts["pid"]), ("command", shell_words(facts["argv"])),
        ("started in", facts["cwd"]), ("is now in", facts.get("cwd_now")),
        ("says it is in", _told_directory(facts)),
        ("title", facts.get("title")),
        ("switched on", mode_words(facts.get("modes") or {}) or None),
        ("size", f"{size['cols']}x{size['rows']}"), ("size policy", facts.get("size_policy")),
        ("age", age(now - facts["created_at"])),
        ("kept after its end", None if facts.get("ttl") is None else age(facts["ttl"])),
        ("labels", " ".join(f"{key}={value}" for key, value in
                            sorted((facts.get("labels") or {}).items())) or None),
        ("busy", busy if facts["state"] in LIVING else None),
        ("output", f"{offsets['start']} to {offsets['end']} kept" if offsets else "not kept"),
        ("ring", f"{ring['bytes']} bytes" if ring else None),
        ("log", _log(facts.get("log"))),
        ("recording", _log(facts.get("recording"))),
        ("input waiting", facts.get("input_queued") or None),
        ("clients", ", ".join(_viewer(viewer) for viewer in facts.get("viewers") or ()) or "none"),
        ("reason", facts.get("reason")),
        ("restart", _relaunch(facts, now)),
        ("kill", _pending_kill(facts.get("kill_pending"), now)),
        ("SSH agent", (facts.get("agent") or {}).get("target")),
    ]
    pairs += [(key, value) for key, value in sorted((facts.get("environment") or {}).items())]
    return [f"{printable(key) + ':':<22}{printable(value)}" for key, value in pairs
            if value is not None]


def _told_directory(facts):
    """What the shell tells by OSC 7; the host, where it is another."""
    told, host = facts.get("cwd_told"), facts.get("cwd_host")
    return f"{told} (on {host})" if told and host else told


def _relaunch(facts, now):
    relaunch = facts.get("relaunch")
    if not relaunch:
        return None
    if relaunch["off"]:
        return f"{facts['restart']} (not again: it was killed)"
    if relaunch["due_at"] is not None:
        return (f"{facts['restart']}, after {exit_text(relaunch['last_exit'] or {}) or 'its loss'}: "
                f"attempt {relaunch['attempts']} of {relaunch['attempts_max']} "
                f"in {age(max(0, relaunch['due_at'] - now))}")
    return facts["restart"]


def _pending_kill(pending, now):
    if not pending:
        return None
    pids = ", ".join(map(str, pending["survivors"][:10])) or "its end"
    return f"not confirmed since {age(now - pending['since'])} ({pids}), tried again every 5 minutes"


def _log(log):
    if not log:
        return None
    error = f" (cannot be written: {log['error']})" if log.get("error") else ""
    missed = f" (lacks {log['missed']} bytes)" if log.get("missed") else ""
    return log["path"] + error + missed


def _viewer(viewer):
    size = viewer.get("size")
    kind = "" if viewer.get("interactive") else " (reads only)"
    return f"pid {viewer.get('pid')}" + (f" {size[0]}x{size[1]}" if size else "") + kind


def status_sheet(facts, now):
    """The lines of `status`."""
    daemon, guard, update = facts["daemon"], facts["guard"], facts["update"]
    lines = [f"daemon:     {facts['state']}"
             + (f", pid {daemon['pid']}, version {printable(str(daemon['version']))}" if daemon["pid"] else "")
             + (f", up {age(now - daemon['started_at'])}" if daemon["started_at"] else "")]
    lines += [f"            {line}" for line in _why(facts, now)]
    if daemon["pid"]:
        lines.append(f"protocol:   {daemon['protocol'][0]} to {daemon['protocol'][1]}"
                     if daemon["protocol"] else "protocol:   unknown")
        if daemon["linked"] or daemon["owner"] != "headless":
            lines.append(f"owner:      {printable(str(daemon['owner']))}, {daemon['linked']} linked")
    lines.append(f"guard:      pid {guard['pid']}, version {printable(str(guard['version']))}" if guard["pid"]
                 else "guard:      none: it has died; the daemon serves on and sets up another"
                 if facts["state"] == "running" else "guard:      not known"
                 if facts["state"] == "unhealthy" else "guard:      none")
    counts = facts["sessions"]
    is_known = daemon["pid"] or guard["pid"] or facts["state"] in ("stopped", "stale")
    lines.append(f"sessions:   {counts['running']} live, {counts['ended']} ended" if is_known
                 else "sessions:   not known")
    lines += _troubles(facts)
    for key in ("dir", "socket", "log"):
        lines.append(f"{key + ':':<12}{printable(facts[key])}")
    if daemon["binary"]:
        lines.append(f"runs:       {printable(daemon['binary'])}")
    if update["pending"]:
        why = f" ({update['deferred_reason']})" if update["deferred_reason"] else ""
        lines.append(f"update:     {printable(update['newest'])} waits{why}; ptyguard upgrade replaces "
                     "the running one, sessions stay")
    if update["last_failure"]:
        lines.append(f"last fail:  {printable(update['last_failure'])}")
    if facts.get("disk_error"):
        lines.append(f"disk:       {printable(facts['disk_error'])}")
        lines.append("            -> sessions run on; free some space there: it is written again then")
    return lines


# state -> what to do, in words for whoever was woken by it.
NEXT_STEPS = {
    "running": "",
    "starting": "look again in a moment; if it stays so: ptyguard daemon log",
    "stopped": "nothing to mend: the next command that needs it starts it",
    "stale": "ptyguard daemon start",
    "unhealthy": "ptyguard doctor says what is in the way",
}
_NEXT_OF_CIRCUIT = "ptyguard daemon log says why; mend that, then: ptyguard daemon restart"


def _why(facts, now):
    """Lines: why it is as it is, and what to do."""
    circuit = facts.get("circuit")
    if circuit:
        when = circuit["retry_at"] and f"; the next try is in {age(circuit['retry_at'] - now)}"
        yield f"daemons keep dying, the last one by: {printable(circuit['reason'])}{when or ''}"
        yield "sessions live on with the guard; clients are refused meanwhile"
    elif facts.get("reason"):
        yield from printable_lines(facts["reason"]).split("\n")
    elif facts["state"] == "stopped" and facts["sessions"]["running"]:
        yield "sessions live on with the guard"
    step = _NEXT_OF_CIRCUIT if circuit else NEXT_STEPS.get(facts["state"], "")
    if step:
        yield f"-> {step}"


def _troubles(facts):
    """Lines about what is not right though it runs; none when all is well."""
    if facts.get("quarantined"):
        yield (f"held back:  {_names(facts['quarantined'])}: daemons died opening it; it runs on, unseen "
               "(ptyguard daemon restart tries again)")
    if facts.get("kills_pending"):
        yield (f"not ended:  {_names(facts['kills_pending'])}: something of it lives on; tried again every "
               "5 minutes (ptyguard info NAME tells what)")
    if facts.get("last_death"):
        death = facts["last_death"]
        yield f"last death: daemon {death['pid']}, {printable(death['at'])}: {printable(death['cause'])}"
    if facts.get("log_error"):
        yield f"no log:     {printable(facts['log'])} cannot be written: {printable(facts['log_error'])}"


def _names(names):
    shown = ", ".join(map(printable, names[:5]))
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def findings_sheet(findings):
    """The lines of `doctor`: level, subject and text; under it what cures it."""
    width = max((len(finding.subject) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.level}  {finding.subject:<{width}}  {printable(finding.text)}")
        if finding.cure:
            lines.append(f"{'':<{width + 8}}-> {printable(finding.cure)}")
    return lines
