"""Recordings as lines: cut anywhere they can be gone on with, and whatever is in one is read or
refused by its line."""

import io
import json

import pytest
from hypothesis import given, settings, strategies as st

from ptyguard_core import export, playing, record, terminal
from ptyguard_core.record import BadRecording, Encoder, Position, Recording, beginning, find_end, in_time

SESSION = "k3f9a2b7cdmn"
START = Position(0.0, SESSION, 1, 0, (80, 24))
# Text, pieces of it, and what is none.
OUTPUT = st.lists(st.sampled_from([b"a", b"\r\n", "é".encode(), "日本".encode(), "😀".encode(), b"\xff", b"\xe2\x82",
                                   b'", "p", "k3f9:1:7:80x24"]\n', b"\x1b[31m", b"\\", b"\0"]),
                  max_size=30).map(b"".join)


def begun():
    return beginning((80, 24), 1_700_000_000, START, "title", {"TERM": "xterm", "SECRET": "x"})


def end_of(data):
    return find_end(lambda offset, count: data[offset:offset + count], len(data))


def events_of(data):
    return list(Recording(io.BytesIO(data)).events())


def text_of(data, code="o"):
    return "".join(text for _, which, text in events_of(data) if which == code)


# -- writing --------------------------------------------------------------------------------


def test_a_recording_is_a_header_and_events_as_asciicast_wants_them():
    encoder = Encoder(START)
    encoder.output("hé".encode(), 1.5)
    encoder.resize((100, 30), 2)
    encoder.input(b"ls\r", 2.25)
    data = begun() + encoder.taken()
    header, *lines = [json.loads(line) for line in data.decode("utf-8").splitlines()]
    assert header == {"version": 2, "width": 80, "height": 24, "timestamp": 1_700_000_000, "title": "title",
                      "env": {"TERM": "xterm"}}
    assert lines == [[0.0, "p", SESSION + ":1:0:80x24"], [1.5, "o", "hé"], [2, "r", "100x30"], [2.25, "i", "ls\r"],
                     [2.25, "p", SESSION + ":1:3:100x30"]]


@given(output=OUTPUT, cuts=st.lists(st.integers(0, 100)))
def test_output_split_anywhere_reads_as_the_whole_would(output, cuts):
    encoder, data, at = Encoder(START), begun(), 0
    for number, cut in enumerate(sorted(cuts) + [len(output)]):
        encoder.output(output[at:cut], number / 10)
        at = max(at, cut)
        data += encoder.taken()
    encoder.end(99)
    data += encoder.taken()
    assert text_of(data) == output.decode("utf-8", "replace")
    assert end_of(data)[0].offset == len(output)


@settings(max_examples=300)
@given(output=OUTPUT, burst=st.integers(1, 9), killed_at=st.floats(0, 1), resize_at=st.integers(0, 20))
def test_a_writer_killed_at_any_byte_is_gone_on_from_without_gap_or_doubling(output, burst, killed_at, resize_at):
    def write(data, encoder):
        for at in range(encoder.position.offset, len(output), burst):
            # It is asked for from the position on, like a session's output.
            encoder.output(output[at:at + burst], at / 10)
            if at // burst == resize_at:
                encoder.resize((100, 30), at / 10)
            data += encoder.taken()
        encoder.end(len(output) / 10)
        return data + encoder.taken()

    whole = write(begun(), Encoder(START))
    left = whole[:int(killed_at * len(whole))]
    found = end_of(left)
    if found is None:
        data = write(begun(), Encoder(START))
    else:
        position, end = found
        data = write(left[:end], Encoder(position))
    assert text_of(data) == output.decode("utf-8", "replace")
    times = [time for time, _, _ in map(json.loads, data.decode().splitlines()[1:])]
    assert times == sorted(times)


def test_a_character_waits_for_its_rest_over_a_resize_and_is_counted_when_it_is_whole():
    encoder = Encoder(START)
    encoder.output(b"a\xe2\x82", 1)
    assert encoder.position.offset == 1
    encoder.resize((90, 20), 2)
    encoder.output(b"\xac", 3)
    assert encoder.position.offset == 4
    codes = [(code, text) for _, code, text in events_of(begun() + encoder.taken()) if code != "p"]
    assert codes == [("o", "a"), ("r", "90x20"), ("o", "€")]


def test_a_gap_is_marked_and_what_was_begun_before_it_is_shown():
    encoder = Encoder(START)
    encoder.output(b"a\xe2", 1)
    encoder.skip(50, 2)
    encoder.output(b"b", 3)
    codes = [(code, text) for _, code, text in events_of(begun() + encoder.taken()) if code != "p"]
    assert codes == [("o", "a"), ("o", "\ufffd"), ("m", "output 2 to 50 was missed"), ("o", "b")]
    assert encoder.position.offset == 51


def test_times_never_go_back():
    encoder = Encoder(START._replace(time=5.0))
    encoder.output(b"a", 4.0)
    encoder.output(b"b", 6.0)
    encoder.input(b"c", 5.5)
    assert [json.loads(line)[0] for line in encoder.taken().splitlines()] == [5.0, 6.0, 6.0, 6.0]


def test_a_long_file_is_looked_at_from_its_end_only():
    encoder, data = Encoder(START), begun()
    encoder.output(b"x" * 1_000_000, 1)
    data += encoder.taken()
    end = len(data)
    encoder.output(b"y" * 3_000_000, 2)
    data += encoder.taken()[:2_999_999]
    looked = []

    def read(offset, count):
        looked.append(count)
        return data[offset:offset + count]

    position, found = find_end(read, len(data))
    assert (position.offset, found) == (1_000_000, end)
    assert sum(looked) < 4_000_000


@pytest.mark.parametrize("data", [b"a text\n", b"a text", b"\0\1\2", b'{"version": 2}\n', b'{"version": 1, "width": 1}\n',
                                  b'{"version": 2, "width": 80, "height": 24}\n[0.1, "o", "x"]\n', b"[]\n",
                                  b"{" * 100_000])
def test_what_is_no_recording_of_ours_is_not_gone_on_with(data):
    with pytest.raises(BadRecording):
        end_of(data)


def test_an_empty_file_and_the_rest_of_a_beginning_begin_anew():
    assert end_of(b"") is None
    data = begun()
    for cut in range(len(data)):
        assert end_of(data[:cut]) is None
    assert end_of(data) == (START, len(data))


# -- reading --------------------------------------------------------------------------------

HEADER = b'{"version": 2, "width": 80, "height": 24}\n'


def test_codes_that_nobody_knows_and_a_line_that_is_cut_are_no_trouble():
    data = HEADER + b'[0.5, "o", "a"]\n[1, "z", {"x": 1}, 7]\n\n[2, "m", ""]\n[3, "o", "cu'
    recording = Recording(io.BytesIO(data))
    assert list(recording.events()) == [(0.5, "o", "a"), (1.0, "z", ""), (2.0, "m", "")]
    assert recording.is_cut and recording.size == (80, 24)


@pytest.mark.parametrize("line, told", [
    (b"nonsense", "no JSON"), (b"{}", "no event"), (b'[1, "o"]', "no event"), (b'["1", "o", ""]', "time"),
    (b'[-1, "o", ""]', "time"), (b'[NaN, "o", ""]', "JSON"), (b'[1e999, "o", ""]', "time"), (b'[true, "o", ""]', "time"),
    (b'[1, "o", 5]', "text"), (b"[" * 200_000, "JSON"), (b"[1" + b"0" * 400 + b', "o", ""]', "time")])
def test_a_broken_line_is_named(line, told):
    with pytest.raises(BadRecording, match="^line 3: .*" + told):
        events_of(HEADER + b'[0.5, "o", "a"]\n' + line + b"\n")


@pytest.mark.parametrize("data", [b"", b"\n", b"text\n", b'{"version": 3, "term": {}}\n', b'{"width": 80, "height": 24}\n',
                                  b'{"version": 2, "width": 0, "height": 24}\n',
                                  b'{"version": 2, "width": true, "height": 24}\n', b"x" * 100_000])
def test_what_has_no_header_is_refused(data):
    with pytest.raises(BadRecording):
        Recording(io.BytesIO(data))


def test_a_line_without_an_end_is_not_kept_in_memory():
    class Endless(io.RawIOBase):
        taken = 0

        def readline(self, size=-1):
            assert 0 < size <= record.LINE_BYTES_MAX + 1
            if not self.taken:
                self.taken = 1
                return HEADER
            self.taken += size
            return b"x" * size

    with pytest.raises(BadRecording, match="^line 2: longer than"):
        list(Recording(Endless()).events())


@given(st.binary(max_size=300))
def test_whatever_a_file_holds_it_is_read_or_refused(data):
    for whole in (data, HEADER + data):
        try:
            events_of(whole)
        except BadRecording:
            pass
        try:
            end_of(whole)
        except BadRecording:
            pass


@pytest.mark.parametrize("text, size", [("80x24", (80, 24)), ("1x65535", (1, 65535)), ("0x24", None), ("80", None),
                                        ("80x24x3", None), ("-1x5", None), ("99999x5", None), ("²x5", None), ("", None)])
def test_sizes_are_read_or_not(text, size):
    assert record.parse_size(text) == size


def test_pauses_are_shortened_and_all_of_it_is_faster():
    events = [(1.0, "o", "a"), (1.5, "o", "b"), (61.5, "o", "c"), (62.0, "o", "d")]
    assert [time for time, _, _ in in_time(events)] == [1.0, 1.5, 61.5, 62.0]
    assert [time for time, _, _ in in_time(events, 2.0, 1.0)] == [0.5, 0.75, 1.25, 1.5]


# -- playing --------------------------------------------------------------------------------


class Stage:
    """A clock that passes when somebody sleeps, and what was written when."""

    def __init__(self, late_s=0.0):
        self.now, self.late_s, self.written = 100.0, late_s, []

    def write(self, data):
        self.written.append((self.now - 100.0, data))

    def sleep(self, seconds):
        self.now += seconds + self.late_s

    def play(self, *output):
        playing.play([(time, "o", text) for time, text in output], self.write, lambda: self.now, self.sleep)
        return self.written


def test_being_late_once_delays_nothing_that_follows():
    stage = Stage(late_s=0.4)
    stage.play((1.0, "a"), (2.0, "b"), (2.1, "c"), (3.0, "d"))
    assert [round(at, 6) for at, data in stage.written if data] == [1.4, 2.4, 2.4, 3.4]


def test_modes_are_undone_however_it_ends():
    assert Stage().play((0, "\x1b[?1049h\x1b[?25"), (0, "l"))[-1][1] == terminal_undo(b"\x1b[?1049h\x1b[?25l")
    stage = Stage()

    def interrupted(_seconds):
        raise KeyboardInterrupt

    stage.sleep = interrupted
    with pytest.raises(KeyboardInterrupt):
        stage.play((0, "\x1b[?2004h"), (5, "never"))
    assert stage.written[-1][1] == b"\x1b[?2004l"


def terminal_undo(data):
    modes = terminal.Modes()
    modes.feed(data)
    return modes.undo()


@given(st.lists(st.sampled_from(["\x1b[c", "\x1b[6n", "\x1b]11;?\x07", "text", "\x1b[31m", "\x1bP+q544e\x1b\\", "\x1b[>q"])),
       st.integers(1, 5))
def test_nothing_that_is_played_makes_a_terminal_answer_however_it_was_cut(parts, step):
    text = "".join(parts)
    shown = terminal.QueryFilter()
    played = b"".join(shown.feed(text[at:at + step].encode()) for at in range(0, len(text), step))
    assert played == terminal.without_queries(text.encode())
    assert played.replace(b"\x18", b"") == "".join(part for part in parts if part in ("text", "\x1b[31m")).encode()


def test_a_query_that_never_ends_is_not_kept_for_ever_nor_completed():
    shown = terminal.QueryFilter()
    played = b"".join(shown.feed(piece) for piece in [b"\x1b]52;c;" + b"x" * 300_000, b"?\x07"])
    assert b"x\x18" in played and played.endswith(b"?\x07")


# -- exporting --------------------------------------------------------------------------------


def test_a_film_keeps_each_row_once_and_frames_tell_what_changed():
    painter = export.HtmlRows()
    film = export.Film(painter, (10, 3), [(0.0, "o", "\x1b[?25la"), (1.0, "o", "\r\nb"), (2.0, "o", "\r\x1b[1Jx"),
                                          (3.0, "o", "\x1b[H\x1b[2Ja")])
    # A blank one, that with the first cursor, a, b and x.
    assert len(film.rows) == len(set(film.rows)) == 5 and film.rows[0] == ""
    assert [(time, sorted(changes)) for time, changes in film.frames] == [
        (0.0, [0]), (1.0, [1]), (2.0, [0, 1]), (3.0, [0, 1])]
    assert film.end_s == 3.0 and "a" in film.last[0] and film.last[1:] == ["", ""]


def test_no_more_than_thirty_frames_a_second_and_the_last_state_is_shown():
    film = export.Film(export.SvgRows(), (20, 2), [(n / 1000, "o", f"\r{n}") for n in range(1000)])
    assert 25 <= len(film.frames) <= 32
    assert "999" in film.last[0]


@pytest.mark.parametrize("make", [export.export_html, export.export_svg])
def test_nothing_recorded_becomes_markup(make):
    evil = "</script><script>alert(1)</script><!--\"'&<img src=x onerror=alert(1)>\x1b]8;;javascript:alert(1)\x07link"
    page = make((200, 5), [(0.0, "o", evil)], "</title><script>alert(2)</script>")
    assert "<script>alert" not in page and "<img" not in page and "javascript:alert" not in page
    assert "&lt;/script&gt;" in page or "\\u003c" in page


def test_a_picture_is_well_formed_and_loads_nothing():
    from xml.dom import minidom
    text = "\x1b[1;31mred\x1b[m ┌─┐ 日本 \x1b[7minverse\x1b[m\r\n"
    page = export.export_svg((40, 4), [(0.0, "o", text), (1.0, "o", text), (2.0, "r", "60x8"), (3.0, "o", "\x1b[?5h")])
    picture = minidom.parseString(page.encode("utf-8"))
    names = {element.getAttribute("id") for element in picture.getElementsByTagName("g")}
    uses = picture.getElementsByTagName("use")
    wanted = {use.getAttribute("href")[1:] for use in uses}
    for animation in picture.getElementsByTagName("animate"):
        values, times = (animation.getAttribute(name).split(";") for name in ("values", "keyTimes"))
        assert len(values) == len(times) and float(times[0]) == 0 and times == sorted(times, key=float)
        wanted |= {value[1:] for value in values}
    assert len(uses) == 8 and wanted <= names
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_a_page_names_its_only_script_and_holds_the_film():
    import base64
    import hashlib
    import re
    page = export.export_html((20, 3), [(0.5, "o", "hello"), (2.0, "o", " world")], "title")
    script = re.search(r"<script>(.*?)</script>", page, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page and "default-src 'none'" in page
    film = json.loads(re.search(r'id="film">(.*?)</script>', page, re.S).group(1))
    assert film["end"] == 2000 and film["times"] == [0, 500, 2000]
    assert not re.search(r"(?:src|href)=", page)


def test_a_screen_of_any_size_is_drawn_within_bounds():
    page = export.export_svg((65535, 65535), [(0.0, "o", "x"), (1.0, "r", "1x1"), (2.0, "r", "65535x2")])
    assert len(page) < 1_000_000


def test_a_long_session_of_an_editor_stays_small():
    events = [(0.0, "o", "\x1b[?1049h\x1b[H" + "".join(f"line {n}: {'x' * n}\r\n" for n in range(23)))]
    for n in range(9000):               # five minutes, a keystroke in each frame
        events.append((n / 30, "o", f"\x1b[{n % 23 + 1};{n % 60 + 1}H\x1b[24;60H{n % 23 + 1},{n % 60 + 1}   "
                                    f"\x1b[{n % 23 + 1};{n % 60 + 1}H"))
    for make in (export.export_html, export.export_svg):
        assert len(make((80, 24), events)) < 3_000_000


def test_another_ring_begins_in_a_terminal_as_new():
    encoder = Encoder(START._replace(offset=70))
    encoder.begin_anew(2, 3.0)
    encoder.output(b"again", 3.5)
    assert [text for _, code, text in events_of(begun() + encoder.taken())] == [
        SESSION + ":1:0:80x24", "\x1bc", "again", SESSION + ":2:5:80x24"]
