"""Skipping: which output a screen need not be fed, because nothing of it is to be seen any more.

Most of what is drawn is drawn over, or scrolls away.  What such output leaves behind is a state:
colours, modes, margins, titles.  So it is skipped, and the screen is fed the sequences that set
that state instead.  The screen is the same as if it had seen all, cell by cell.

Rule 1: output is looked at from its end.  There is a list of what the rest of it needs to know (`_Needs`):
        what stands on either screen, where the cursor is, what was saved of it, what has scrolled away.
        What overwrites one of those ends the need for it; output is skipped where nothing that
        it changes is needed.
Rule 2: all cells are overwritten in two ways: the screen is erased and the cursor put somewhere
        (`_clear_start`), or so many lines follow that all older ones are gone (`_lines_start`).
        Where neither is found, it may be guessed that the newest output draws them all (`_guess`).
Rule 3: of sequences that set something to a value, no matter what it was, only the last of each
        counts (`_SETS`).  All others that leave a state behind are fed in their order (`_EVENT`).
Rule 4: what is not understood, or sets what depends on the place of the cursor (tab stops), is a
        barrier: nothing before its end is skipped.

Not kept: marks up to the end of what is skipped, and the count of skipped lines in `Screen.lines_scrolled`.
"""

import collections
import itertools

from .terminal import Pattern, unfinished_at

LEAST_BYTES = 16384            # less is drawn sooner than the patterns below are compiled
EVENTS_MAX = 10000             # more of them cost more than they save
TRIES_MAX = 32                 # intervals of plain lines that are looked at, between two events
TOKEN_MAX = 64                 # bytes of an event; longer ones are barriers

# --- sequences ---------------------------------------------------------------------------

_ANY = rb"[0-9:;]*"
# One private mode, but not origin, reverse wrap, margins at the sides, and those that are acts.
_MODE = rb"\[\?(?!(?:6|45|47|69|104[789])[hl])[1-9][0-9]{0,4}[hl]"
_END = rb"(?:\x07|\x1b\\)"

# What leaves no state behind but cells, the place of the cursor, and what _SETS has.
_UNEVENTFUL = (
    rb"\[" + _ANY + rb"[@-IK-fh-qtv-~]"
    rb"|\([0-~]"
    rb"|\[\??(?!0*3[:;J])" + _ANY + rb"J"
    rb"|" + _MODE +
    rb"|[ -\"$-/][ -/]*[0-~]|#(?!8)[ -/]*[0-~]"
    rb"|[0-69-?@-GI-MQ-WYZ\\`abd-jl-~]"
    rb"|\][0-9A-Za-z]*(?:;[^\x07\x18\x1a\x1b]*)?" + _END +
    rb"|\[\?" + _ANY + rb"[@-IK-VX-gi-km-~]"
    rb"|\[[<=>]" + _ANY + rb"[@-tv-~]"
    rb"|\[[<-?]?" + _ANY + rb"(?!!p)[ -/]+[@-~]"
    rb"|[PX^_k][^\x18\x1a\x1b]*")

_EVENT = Pattern(
    rb"\x1b(?!" + _UNEVENTFUL + rb")(?:"
    rb"(?P<save>7|\[" + _ANY + rb"s)"
    rb"|(?P<restore>8|\[" + _ANY + rb"u)"
    rb"|(?P<modes>\[\?[0-9;]*[hl])"
    rb"|(?P<margins>\[[0-9;]*r)"
    rb"|(?P<erase_history>\[\??0*3(?:[:;]" + _ANY + rb")?J)"
    rb"|(?P<keyboard>\[[<=>]" + _ANY + rb"u)"
    rb"|(?P<reset>c)"
    rb"|(?P<soft_reset>\[" + _ANY + rb"!p)"
    rb"|(?P<barrier>))")

# What an act among the private modes does, when it is set and when it is reset.
_ACTS = {
    47: ("enter", "leave"),
    1047: ("enter", "leave_erasing"),
    1048: ("save", "restore"),
    1049: ("enter_saving", "leave_restoring"),
}
_BARRIER_MODES = {6, 45, 69}

# Each sets something to a value that it names, whatever was before.  What is most frequent is
# passed over in one look; so is the first character set, of which `_state` looks for the last.
_SETS = Pattern(
    rb"\x1b(?!\[[0-9:;]*[@-gi-km-psu-~]|\([0-~])(?:"
    rb"[)*+./-][0-~]|[=>no]"
    rb"|\[\??[0-9;:]*[hl]|\[[0-9;:]*(?:r| q)|\[>[0-9;:]*m|\[0*2[23][:;0-9]*t"
    rb"|\](?:[012478]|1[0-2]|104|11[0-2])(?:;[^\x07\x18\x1a\x1b]*)?" + _END + rb")")
# What is inside a string is none.
_SHIFTS = Pattern(rb"\x1b(?:\][^\x07\x18\x1a\x1b]*|[PX^_k][^\x18\x1a\x1b]*)|(\x1b[no]|[\x0e\x0f])")
_PLAIN_MODE = Pattern(rb"\x1b(?:" + _MODE + rb"|\[[0-9;:]*(?:[hlr]| q)|\[>[0-9;:]*m|[=>])")
# And nothing that is drawn asks for these: all but wrap, insert and newline mode, and margins.
_FIRST_SET = Pattern(rb"\x1b\([0-~]")
_IDLE_MODE = Pattern(rb"\x1b(?:(?!\[\?7[hl])" + _MODE + rb"|\[[0-9;:]* q|\[>[0-9;:]*m|[=>])")
_COLOURS = Pattern(rb"\x1b\[[0-9:;]*m")

# --- what overwrites cells -----------------------------------------------------------------

# The cursor goes home and the screen is erased, or the screen is erased and the cursor goes somewhere.
_ERASURES = (b"\x1b[2J", b"\x1b[J", b"\x1b[0J")
_QUIET = rb"(?:\x1b(?:\[[0-9:;]{0,64}m|[()][0-~]|\[\?25[hl]|\[3J))*"
_HOME = Pattern(rb"\x1b\[[01]?(?:;[01]?)?[Hf]" + _QUIET + rb"\Z")
_HOME_MAX = 128                 # bytes of that, at most
_ERASED_AND_PLACED = Pattern(rb"\x1b\[2J" + _QUIET + rb"\x1b\[[0-9]{0,4}(?:;[0-9]{0,4})?[Hf]")


def _clear_start(data, start, end):
    """Where between these the last thing begins that erases the screen and places the cursor; or -1."""
    at = end
    for _ in range(TRIES_MAX):
        at = max(data.rfind(erasure, start, at) for erasure in _ERASURES)
        if at < 0:
            break
        if _ERASED_AND_PLACED.match(data, at, end):
            return at
        home = _HOME.search(data, max(start, at - _HOME_MAX), at)
        if home:
            return home.start()
    return -1


# What a line may have in it without ever taking the cursor up, and without a line feed inside.
_TAME = (
    rb"\[" + _ANY + rb"[@CDGJKPX`abchlmnt]"
    rb"|" + _MODE +
    rb"|\][0-9]+(?:;[^\x00-\x1f]*)?" + _END +
    rb"|[()][0-~]|[=>\\]"
    rb"|\[[<=>]" + _ANY + rb"[mu]")
_WILD = Pattern(rb"\x1b(?!" + _TAME + rb")")
_LAST_WILD = Pattern(rb"(?s:.*)(\x1b(?!" + _TAME + rb"))")
_STRING = Pattern(rb"\x1b(?:\][^\x07\x18\x1a\x1b]*|[PX^_k][^\x18\x1a\x1b]*)")


def _lines_start(data, start, end, count):
    """The last place between `start` and `end` that `count` whole lines follow, all of them tame; or -1."""
    for _ in range(TRIES_MAX):
        at = end
        for _ in range(count + 1):
            at = data.rfind(b"\r\n", start, at)
            if at < 0:
                return -1
        at += 2
        before = max(start, data.rfind(b"\x1b", start, at))
        string = _STRING.match(data, before)
        if string and string.end() >= at:           # it is inside of that
            end = before
        elif _WILD.search(data, at, end):
            end = _LAST_WILD.match(data, at, end).start(1)
        else:
            return at
    return -1


# --- what is needed -------------------------------------------------------------------------

# 1049 is that, and then it erases, which takes longer than all else.
_ENTER_UNERASED = b"\x1b[?1048h\x1b[?47h"


class _Needs:
    """What must be known, somewhere in the output, for the rest of it to look right."""

    def __init__(self, has_history):
        self.cells = {False: True, True: True}      # of the main and of the alternate screen
        self.cursor = True                          # its place
        self.saved = {False: True, True: True}      # the place that DECSC has noted
        self.looks = {False: True, True: True}      # and what else it has
        self.history = has_history

    def are_met(self, is_alternate):
        """Is nothing needed of what is drawn here?"""
        return not (self.cells[is_alternate] or self.cursor or self.history and not is_alternate)

    def is_idle(self, event):
        """Does this event change nothing but a state like others, or what nobody needs?"""
        is_alternate = event.is_alternate
        return event.kind == "margins" or (
            (event.kind == "save" or event.kind == "enter_saving" and is_alternate)
            and not (self.saved[is_alternate] or self.looks[is_alternate]) and self.are_met(is_alternate))

    def instead_of(self, event):
        """What does the same as this event where it is skipped; None for the event itself."""
        is_that_alone = event.kind == "enter_saving" and event.end - event.start == len(b"\x1b[?1049h")
        return _ENTER_UNERASED if is_that_alone and not self.cells[True] else None

    def are_met_before(self, start, end, is_alternate):
        """`are_met`; else what is drawn between these is drawn where the cursor is, over what stands there."""
        are_met = self.are_met(is_alternate)
        if start < end and not are_met:
            self.cells[is_alternate] = self.cursor = True
        return are_met

    def erased(self, is_alternate):
        self.cells[is_alternate] = self.cursor = False

    def scrolled_away(self, is_alternate):
        self.erased(is_alternate)
        self.history &= is_alternate

    def save(self, is_alternate):
        self.cursor |= self.saved[is_alternate]
        self.saved[is_alternate] = self.looks[is_alternate] = False

    def restore(self, is_alternate):
        self.saved[is_alternate] |= self.cursor
        self.looks[is_alternate] = True
        self.cursor = False

    def enter_saving(self, is_alternate):
        self.cells[True] = False
        self.save(is_alternate)

    def leave_restoring(self, is_alternate):
        self.restore(False)

    def leave_erasing(self, is_alternate):
        if is_alternate:
            self.cells[True] = False

    def soft_reset(self, is_alternate):
        self.saved[is_alternate] = self.looks[is_alternate] = False

    def erase_history(self, is_alternate):
        self.history = False

    def reset(self, is_alternate):
        for each in (self.cells, self.saved, self.looks):
            each.update({False: False, True: False})
        self.cursor = self.history = False

    def nothing(self, is_alternate):
        """Other events change nothing that is needed."""

    end = enter = leave = margins = keyboard = nothing


class _Event:
    """A sequence that leaves a state behind, or a place where something is overwritten; and what holds there."""

    __slots__ = ("start", "end", "kind", "is_alternate", "is_full")

    def __init__(self, start, end, kind, is_alternate=False, is_full=False):
        self.start, self.end, self.kind = start, end, kind
        self.is_alternate = is_alternate        # which screen is shown before it
        self.is_full = is_full                  # whether all rows scroll


def _kind(match):
    """What an event is; None if it is none after all."""
    kind, token = match.lastgroup, match.group()
    if len(token) > TOKEN_MAX:
        return "barrier"
    if kind != "modes":
        return kind
    numbers = {int(number or b"0") for number in token[3:-1].split(b";")}
    acts = numbers & _ACTS.keys()
    if len(acts) > 1 or numbers & _BARRIER_MODES:
        return "barrier"
    return _ACTS[acts.pop()][token.endswith(b"l")] if acts else None


def _events(data, end):
    """(where the last barrier ends, the events after it); None when there are too many."""
    found, begin = [], 0
    matches = _EVENT.finditer(data, 0, end)
    for match in itertools.islice(matches, EVENTS_MAX):
        kind = _kind(match)
        if kind == "barrier":
            begin = _next_sequence(data, match.end())
            found.clear()
        elif kind:
            found.append(_Event(match.start(), match.end(), kind))
    return None if next(matches, None) else (begin, found)


def _next_sequence(data, at):
    """Where the next sequence begins: there nothing is unfinished."""
    while True:
        at = data.find(b"\x1b", at)
        if at < 0:
            return len(data)
        if data[at + 1:at + 2] != b"\\":
            return at
        at += 1


# Which screen is shown after an event, where that is not the one before.
_SHOWS = {"enter": True, "enter_saving": True, "leave": False, "leave_erasing": False,
          "leave_restoring": False, "reset": False}
_SCROLLS_ALL = ("reset", "soft_reset")


def _situate(events, data, is_alternate, is_full, rows):
    """Note with each event what holds before it."""
    for event in events:
        event.is_alternate, event.is_full = is_alternate, is_full
        is_alternate = _SHOWS.get(event.kind, is_alternate)
        if event.kind in _SCROLLS_ALL:
            is_full = True
        elif event.kind == "margins":
            is_full = _is_full(data[event.start + 2:event.end - 1], rows, is_full)


def _is_full(parameters, rows, before):
    """Do all rows scroll after DECSTBM?"""
    numbers = [int(number or b"0") for number in parameters.split(b";")]
    top = max(1, numbers[0])
    bottom = numbers[1] if len(numbers) > 1 and 0 < numbers[1] <= rows else rows
    return (top, bottom) == (1, rows) if top < bottom else before


# --- the plan ------------------------------------------------------------------------------

Plan = collections.namedtuple("Plan", "pieces is_guess")
Plan.__doc__ = """What a screen is to be fed instead of output: (start, end, instead) in a row.

`instead` is None where that is the output itself.  The last one ends with the output, or before:
then ask again from there.  A guess is that the last one draws all cells anew; see `Screen.doubt_cells`.
"""


def plan(data, screen, history_max, may_guess=False):
    """What `screen`, which keeps so much history, is to be fed for `data`: a Plan."""
    cut = unfinished_at(data)
    end = len(data) if cut is None else cut
    found = _events(data, end) if screen.is_plain and len(data) >= LEAST_BYTES else None
    if found is None:
        return Plan([(0, len(data), None)], False)
    begin, events = found
    if begin:                   # only the screen knows what holds after a barrier
        return Plan([(0, begin, None)], False)
    cols, rows = screen.size
    events.append(_Event(end, len(data), "end"))
    _situate(events, data, screen.is_alternate, screen.margins == (0, rows - 1, 0, cols - 1), rows)
    guessed_at = -1
    if may_guess and (events[-1].is_alternate or not history_max):
        guessed_at = _guess(data, events)
    made = _joined(data, list(_parts(data, events, rows, history_max, guessed_at))[::-1])
    return Plan(made, made[-1][0] == guessed_at)


GUESS_BYTES = 8192              # so much output is likely to draw all of a screen
_PLACED = Pattern(rb"\x1b\[[0-9]{0,4}(?:;[0-9]{0,4})?H")


def _guess(data, events):
    """Where the cursor is placed, with so much output behind it that all may be drawn anew; or -1."""
    end = events[-1].start
    start = next((event.end for event in events[-2::-1] if event.kind not in _TAME_EVENTS), 0)
    placed = end - start > 2 * GUESS_BYTES and _PLACED.search(data, end - GUESS_BYTES, end)
    return placed.start() if placed else -1


_TAME_EVENTS = ("keyboard", "erase_history")       # those that a run of lines may have in it


def _parts(data, events, rows, history_max, guessed_at):
    """(start, end, is_skipped) from the end on; for events None, or what is fed instead within what is skipped."""
    needs = _Needs(history_max > 0)
    for start, tame, last in _runs(events):
        yield last.start, last.end, needs.are_met(last.is_alternate) if needs.is_idle(last) else needs.instead_of(last)
        getattr(needs, last.kind)(last.is_alternate)
        places = _overwritten_at(data, start, last, needs, rows, history_max)
        if start <= guessed_at < last.start and not places:
            places = [_Event(guessed_at, guessed_at, "erased")]
        at = last.start
        for event in sorted(tame + places, key=lambda event: event.start, reverse=True):
            yield event.end, at, needs.are_met_before(event.end, at, last.is_alternate)
            yield event.start, event.end, None
            getattr(needs, event.kind)(last.is_alternate)
            at = event.start
        yield start, at, needs.are_met_before(start, at, last.is_alternate)


def _runs(events):
    """(start, tame events, the event that ends it) of what lies between the others, from the end on."""
    tame, last = [], events[-1]
    for event in events[-2::-1]:
        if event.kind in _TAME_EVENTS:
            tame.append(event)
        else:
            yield event.end, tame, last
            tame, last = [], event
    yield 0, tame, last


def _overwritten_at(data, start, last, needs, rows, history_max):
    """The last places in a run behind which nothing older is to be seen, as events."""
    found = []
    if needs.are_met(last.is_alternate):
        return found
    clear = _clear_start(data, start, last.start)
    if clear >= 0:
        found.append(_Event(clear, clear, "erased"))
    if last.is_full:
        needs_history = needs.history and not last.is_alternate
        begin = start if needs_history else max(start, clear)
        count = 2 * rows + 1 + (history_max if needs_history else 0)
        at = _lines_start(data, begin, last.start, count)
        if at >= 0:
            found.append(_Event(at, at, "scrolled_away"))
    return found


class _Stretch:
    """Output that is fed, or skipped, as a whole; and where events are in it."""

    def __init__(self, start, end, is_skipped):
        self.start, self.end, self.is_skipped = start, end, is_skipped
        self.events = []


def _joined(data, parts):
    """The pieces that these parts make."""
    made = [_Stretch(0, 0, False)]
    for start, end, is_skipped in parts:
        is_event = is_skipped is None or isinstance(is_skipped, bytes)
        if is_event or is_skipped == made[-1].is_skipped:
            made[-1].end = end
        elif start < end:
            made.append(_Stretch(start, end, is_skipped))
        if is_event:
            made[-1].events.append((start, end, is_skipped or data[start:end]))
    seen = set()
    pieces = [(each.start, each.end, _instead(data, each, seen) if each.is_skipped else None)
              for each in reversed(made) if each.start < each.end]
    return pieces[::-1]


_CAN = b"\x18"                  # ends what a barrier may have left unfinished


def _instead(data, stretch, seen):
    """What brings a screen into the state that skipped output leaves, cells and the place of the cursor aside.

    `seen`: modes that are set later on.
    """
    made, at = [], stretch.start
    for start, end, event in stretch.events:
        made += _state(data[at:start])
        made.append(event)
        at = end
    return _CAN + b"".join(_without_early_modes(made + _state(data[at:stretch.end]), seen))


def _state(data):
    """The sequences that set what holds at the end of this output, each once."""
    if not data:
        return []
    sets = _SETS.findall(data)
    if b"\x0e" in data or b"\x0f" in data:
        sets += filter(None, _SHIFTS.findall(data))
    # All colours before a reset do not matter.
    reset = max(data.rfind(b"\x1b[m"), data.rfind(b"\x1b[0m"), 0)
    return _without_early(sets) + _first_set(data) + _last_of_each(_COLOURS.findall(data, reset))


def _first_set(data):
    """The last sequence that sets G0, in a list; or none."""
    at = len(data)
    while True:
        at = data.rfind(b"\x1b(", 0, at)
        match = at >= 0 and _FIRST_SET.match(data, at)
        if match or at < 0:
            return [match.group()] if match else []


def _without_early(sets):
    """Of these each where it stands last; but titles are pushed and popped in their order."""
    last = _last_of_each(sets)
    if not any(_is_title_stack(sequence) for sequence in last):
        return last
    if any(sequence.startswith(b"\x1b]") for sequence in last):
        return sets
    return ([sequence for sequence in last if not _is_title_stack(sequence)]
            + [sequence for sequence in sets if _is_title_stack(sequence)])


def _is_title_stack(sequence):
    return sequence.startswith(b"\x1b[") and sequence.endswith(b"t")


def _without_early_modes(sequences, seen):
    """Of each mode only the last of all: no event asks for one, as some do for colours and character sets."""
    seen_here, kept = set(), []
    for sequence in reversed(sequences):
        if sequence not in seen and sequence not in seen_here:
            kept.append(sequence)
            if _IDLE_MODE.fullmatch(sequence):
                seen.add(sequence)
            elif _PLAIN_MODE.fullmatch(sequence):
                seen_here.add(sequence)
    return reversed(kept)


def _last_of_each(found):
    """Each of these sequences once, where it stands last (rule 3)."""
    return list(dict.fromkeys(reversed(found)))[::-1]
