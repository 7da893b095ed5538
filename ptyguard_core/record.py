"""Record: a session's output as asciicast v2, written and read.

Pure: bytes and text in, lines out; time (seconds since the recording began) is an argument.
The format is that of docs.asciinema.org/manual/asciicast/v2: a header, then one event a line,

    [12.345678, "o", "text"]        output; "i" input, "r" a new size, "m" a marker

and one of our own, which players pass over as they do with every code that they do not know:

    [12.345678, "p", "k3f9a2b7cdmn:1:4096:80x24"]

the position: what stands before it is all of session k3f9a2b7cdmn, incarnation 1, up to output
offset 4096, and the terminal was 80x24 then.

Rule 1: a position is in the same write as the events before it.  So a writer that was killed
        left a file whose last position is the truth: what follows that is cut off, and the
        next writer goes on at its offset.  Nothing is missing, nothing is there twice.
Rule 2: text is decoded over all pieces.  A character that has only begun waits for its rest,
        over a resize too, and the position does not count it.
Rule 3: times never go back.
Rule 4: a reader takes any codes and a last line that is cut; what else is wrong it says, and
        in which line.  It keeps one line at a time, of at most LINE_BYTES_MAX.
"""

import codecs
import collections
import json
import re

LINE_BYTES_MAX = 32 << 20       # a burst of a writer's is 256 KiB, six bytes each at worst
HEADER_BYTES_MAX = 64 * 1024
POSITION_LOOK_BYTES = 64 << 20  # how far from the end of a file its last position can be
SIZE_MAX = 65535
_PIECE = 256 * 1024
_POSITION_BYTES_MAX = 256

# `time` is that of its own line; `size` is (cols, rows).
Position = collections.namedtuple("Position", "time session incarnation offset size")
_POSITION = re.compile(rb'\n\[([0-9]{1,12}(?:\.[0-9]{1,9})?), "p", "([a-z0-9]{4,32}):([0-9]{1,18}):([0-9]{1,20})'
                       rb':([0-9]{1,5})x([0-9]{1,5})"\](?=\n)')
_BEGINNING = b'{"version": 2, '         # of a header of ours
_FIRST_POSITION = b'[0.0, "p", "'


class BadRecording(ValueError):
    """It is no recording that can be read; the message says what is wrong, and where."""


# -- writing ------------------------------------------------------------------------------

def beginning(size, timestamp, position, title="", env=()):
    """The bytes that a file begins with: header and first position; `timestamp` in Unix seconds."""
    fields = {"version": 2, "width": size[0], "height": size[1], "timestamp": int(timestamp)}
    if title:
        fields["title"] = title
    kept = {name: value for name, value in dict(env).items() if name in ("TERM", "SHELL") and value}
    if kept:
        fields["env"] = kept
    # ASCII: a name may hold what is no text, and a header is read by everybody.
    return json.dumps(fields).encode("ascii") + b"\n" + _position_line(position)


def _position_line(at):
    return _line(at.time, "p", "%s:%d:%d:%dx%d" % (at.session, at.incarnation, at.offset, *at.size))


def _line(time, code, text):
    return f"[{time!r}, \"{code}\", {json.dumps(text, ensure_ascii=False)}]\n".encode("utf-8", "replace")


class Encoder:
    """Turns what happens in a session into what is to be written, from `position` on."""

    def __init__(self, position):
        self.position = position
        self._lines = []
        self._text = []                 # output of one moment, not in a line yet
        self._output = codecs.getincrementaldecoder("utf-8")("replace")
        self._input = codecs.getincrementaldecoder("utf-8")("replace")

    def output(self, data, time):
        """The next bytes of output."""
        self._to(time)
        held = self._held()
        text = self._output.decode(bytes(data))
        self._count(held + len(data) - self._held())
        if text:
            self._text.append(text)

    def end(self, time):
        """No more of this output follows: what is held back of a character is shown as it is."""
        self._to(time)
        held = self._held()
        text = self._output.decode(b"", True)
        self._count(held)
        if text:
            self._text.append(text)

    def skip(self, offset, time):
        """Output up to `offset` is gone; a marker tells."""
        self.end(time)
        self._event("m", f"output {self.position.offset} to {offset} was missed")
        self.position = self.position._replace(offset=offset)

    def begin_anew(self, incarnation, time):
        """The session has another ring, whose output begins at 0, and a terminal as new."""
        self.end(time)
        self._event("o", "\x1bc")
        self.position = self.position._replace(incarnation=incarnation, offset=0)

    def paint(self, data):
        """What a terminal shows at this place: bytes that are not of the output."""
        self._event("o", data.decode("utf-8", "replace"))

    def input(self, data, time):
        """Bytes that were typed."""
        self._to(time)
        text = self._input.decode(bytes(data))
        if text:
            self._event("i", text)

    def resize(self, size, time):
        """The terminal has another size, (cols, rows), from here on."""
        self._to(time)
        if size != self.position.size:
            self._event("r", "%dx%d" % size)
            self.position = self.position._replace(size=size)

    def _held(self):
        return len(self._output.getstate()[0])

    def _count(self, count):
        self.position = self.position._replace(offset=self.position.offset + count)

    def _to(self, time):
        time = round(time, 6)
        if time > self.position.time:           # rule 3
            self._flush()
            self.position = self.position._replace(time=time)

    def _flush(self):
        if self._text:
            self._lines.append(_line(self.position.time, "o", "".join(self._text)))
            self._text = []

    def _event(self, code, text):
        self._flush()
        self._lines.append(_line(self.position.time, code, text))

    @property
    def has_more(self):
        """Whether there is something to be written."""
        return bool(self._lines or self._text)

    def taken(self):
        """What is to be written, in one write, and not asked for again; the position is its end."""
        self._flush()
        lines, self._lines = self._lines, []
        return b"".join(lines + [_position_line(self.position)])


# -- where a file ends ---------------------------------------------------------------------

def find_end(read, size):
    """(the last Position, the offset in the file behind its line) of a file of `size` bytes.

    None when the file holds nothing yet, or only what a writer that was killed at once left of a
    beginning.  `read(offset, count)` gives bytes of it.  BadRecording for what is no recording
    that can be gone on with; its file is not to be touched.
    """
    front = read(0, HEADER_BYTES_MAX)
    header, newline, rest = front.partition(b"\n")
    if not newline:
        if _is_beginning_of(front, _BEGINNING):
            return None
    else:
        _read_header(header)
        if size < HEADER_BYTES_MAX and b"\n" not in rest and _is_beginning_of(rest, _FIRST_POSITION):
            return None
        found = _last_position(read, size)
        if found is not None:
            return found
        raise BadRecording("it was not made by ptyguard, which could not tell where to go on")
    raise BadRecording("it is no recording (asciicast v2)")


def _is_beginning_of(data, text):
    return data[:len(text)] == text[:len(data)]


def _last_position(read, size):
    end = size
    while end > max(0, size - POSITION_LOOK_BYTES):
        start = max(0, end - _PIECE)
        data = read(start, min(size, end + _POSITION_BYTES_MAX) - start)
        last = None
        for last in _POSITION.finditer(data):
            pass
        if last is not None:
            time, session, *numbers = last.groups()
            incarnation, offset, cols, rows = map(int, numbers)
            return (Position(float(time), session.decode("ascii"), incarnation, offset, (cols, rows)),
                    start + last.end() + 1)
        end = start
    return None


# -- reading ------------------------------------------------------------------------------

class Recording:
    """A recording being read, line by line, from a binary file."""

    def __init__(self, file):
        """Reads the header; BadRecording when it is none."""
        self._file = file
        line = file.readline(HEADER_BYTES_MAX)
        if not line:
            raise BadRecording("the file is empty")
        if not line.endswith(b"\n") and len(line) == HEADER_BYTES_MAX:
            raise BadRecording("line 1: no header of a recording")
        self.header = _read_header(line)
        self.size = self.header["width"], self.header["height"]
        self.is_cut = False             # the last line was not whole

    def events(self):
        """Yield (time, code, text) of each event, also of codes that nobody knows."""
        number, last = 1, 0.0
        while True:
            number += 1
            line = self._file.readline(LINE_BYTES_MAX + 1)
            if not line:
                return
            if len(line) > LINE_BYTES_MAX:
                raise BadRecording(f"line {number}: longer than {LINE_BYTES_MAX >> 20} MiB")
            if not line.strip():
                continue
            try:
                event = _read_event(line)
            except BadRecording as error:
                if not line.endswith(b"\n"):
                    self.is_cut = True
                    return
                raise BadRecording(f"line {number}: {error}") from None
            last = max(last, event[0])
            yield (last,) + event[1:]


def _read_json(line):
    try:
        return json.loads(line.decode("utf-8", "replace"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BadRecording("it is no JSON") from None


def _refuse(word):
    raise ValueError(word)


def _read_header(line):
    try:
        header = _read_json(line)
    except BadRecording:
        raise BadRecording("line 1: no header of a recording (asciicast v2)") from None
    version = header.get("version") if isinstance(header, dict) else None
    if version != 2:
        raise BadRecording(f"line 1: an asciicast of version {str(version)[:20]}, and only version 2 can be read"
                           if version is not None else "line 1: no header of a recording (asciicast v2)")
    for name in ("width", "height"):
        if type(header.get(name)) is not int or not 0 < header[name] <= SIZE_MAX:
            raise BadRecording(f"line 1: {name} is no number of cells")
    return header


def _read_event(line):
    event = _read_json(line)
    if not isinstance(event, list) or len(event) < 3 or not isinstance(event[1], str):
        raise BadRecording("it is no event: [time, code, text]")
    time, code, text = event[:3]
    if type(time) not in (int, float) or not 0 <= time < 1e10:
        raise BadRecording("its time is no number of seconds")
    if not isinstance(text, str):
        if code in ("o", "i", "r"):
            raise BadRecording("what it holds is no text")
        text = ""                       # a code of somebody else's
    return float(time), code, text


def parse_size(text):
    """(cols, rows) of an "r" event's text, or None."""
    cols, _, rows = text.partition("x")
    if all(part.isascii() and part.isdigit() and len(part) <= 5 and 0 < int(part) <= SIZE_MAX
           for part in (cols, rows)):
        return int(cols), int(rows)
    return None


# -- time for those who look on --------------------------------------------------------------

def in_time(events, speed=1.0, idle_limit_s=None):
    """The same events, played faster, and pauses no longer than `idle_limit_s` before that."""
    last, shift = 0.0, 0.0
    for time, code, text in events:
        if idle_limit_s is not None:
            shift += max(0.0, time - last - idle_limit_s)
            last = time
        yield (time - shift) / speed, code, text
