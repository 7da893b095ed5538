"""The detach key: every shape of it, however it was split, and nothing else."""

import pytest
from hypothesis import example, given, strategies as st

from ptyguard_core import detachkey, errors
from ptyguard_core.detachkey import DEFAULT, Matcher, parse

# Every shape in which a terminal sends each key.
SHAPES = {
    "C-\\": [
        b"\x1c", b"\x1b[92;5u", b"\x1b[92;5:1u", b"\x1b[92;5:2u", b"\x1b[92:124;5u",
        b"\x1b[92:124:92;5:1u",
        b"\x1b[92::92;5u", b"\x1b[92;69u", b"\x1b[92;133u", b"\x1b[92;197:1u", b"\x1b[92;5;28u",
        b"\x1b[45:92;6u",                                   # a layout where it takes Shift
        b"\x1b[27;5;92~", b"\x1b[27;6;92~",
    ],
    "C-b": [b"\x02", b"\x1b[98;5u", b"\x1b[98:66;5u", b"\x1b[98;69:1u", b"\x1b[1080::98;5u",
            b"\x1b[27;5;98~", b"\x1b[27;5;66~"],
    "C-Space": [b"\x00", b"\x1b[32;5u", b"\x1b[27;5;32~", b"\x1b[50:64;6u", b"\x1b[27;6;64~"],
    "C-^": [b"\x1e", b"\x1b[54:94;6u", b"\x1b[94;5u", b"\x1b[27;6;94~"],
    "C-_": [b"\x1f", b"\x1b[45:95;6u", b"\x1b[27;6;95~"],
    "M-x": [b"\x1bx", b"\x1b[120;3u", b"\x1b[27;3;120~"],
    "M-D": [b"\x1bD", b"\x1b[100;4u", b"\x1b[100:68;4u", b"\x1b[27;4;68~"],
}

SECONDS = {
    "d": [b"d", b"\x1b[100u", b"\x1b[100;1u", b"\x1b[100;1:1u", b"\x1b[100;;100u", b"\x1b[100;65u"],
    "D": [b"D", b"\x1b[100;2u", b"\x1b[100:68;2:1;68u", b"\x1b[27;2;68~"],
    '"': [b'"', b'\x1b[39:34;2u', b'\x1b[39;2;34u', b"\x1b[27;2;34~"],
    "C-q": [b"\x11", b"\x1b[113;5u", b"\x1b[27;5;113~"],
    "C-b": [b"\x02", b"\x1b[98;5u"],
}

# What comes near and is another key, or none.
NOT_THE_KEY = [
    b"", b"plain", b"\\", b"|", b"\x1b", b"\x1b[92u", b"\x1b[92;1u", b"\x1b[92;6u",
    b"\x1b[92:124;6u", b"\x1b[92;7u", b"\x1b[92;13u", b"\x1b[93;5u", b"\x1b[92;5~", b"\x1b[92;5U",
    b"\x1b[27;5;93~", b"\x1b[27;3;92~", b"\x1b[27;5;92u", b"\x1b[?92;5u", b"\x1b[35::92;5u",
    b"\x1b[A", b"\x1bOP", b"\x1b[<35;10;5M", b"\x1b[I", b"\x1b[1;5C", b"\x1b]11;rgb:0/0/0\x1b\\",
    b"\x1bP>|xterm(1)\x1b\\", b"\xff\x80\xc3\xa9", b"\x1b[\x1b[", b"\x1b[ q",
]

REPORTS = [
    b"\x1b[<35;10;5M", b"\x1b[<0;1;1m", b"\x1b[32;10;5M", b"\x1b[I", b"\x1b[O",         # mouse, focus
    b"\x1b[?62;22c", b"\x1b[?2026;2$y", b"\x1b[>1;10;0c", b"\x1b[5;7R", b"\x1b[0n",     # answers
    b"\x1b[98;5:3u", b"\x1b[98;1:3u", b"\x1b[57442;5u", b"\x1b[57442;1:3u",             # released, Ctrl
]


def fed(matcher, *reads):
    """(everything forwarded, rest or None), with what is held at the end flushed."""
    forwarded = b""
    for i, read in enumerate(reads):
        forward, is_detach, rest = matcher.feed(read)
        forwarded += forward
        if is_detach:
            return forwarded, rest + b"".join(reads[i + 1:])
        assert rest == b""
    return forwarded + matcher.flush(), None


def assert_found(key, before, shape, after, forwarded=None):
    """The key is found in `before + shape + after`, split at any byte, or at all of them."""
    data = before + shape + after
    want = (before if forwarded is None else forwarded, after)
    for at in range(len(data) + 1):
        assert fed(Matcher(key), data[:at], data[at:]) == want, (at, data)
    assert fed(Matcher(key), *[data[i:i + 1] for i in range(len(data))]) == want, data


# --- parse ----------------------------------------------------------------------------

@pytest.mark.parametrize("text, spelled", [
    ("C-\\", "C-\\"), ("^\\", "C-\\"), ("C-\\\\", "C-\\"), ("c-a", "C-a"), ("C-A", "C-a"),
    ("^x", "C-x"), ("^X", "C-x"), ("C-Space", "C-Space"), ("C-space", "C-Space"),
    ("C-@", "C-Space"), ("^@", "C-Space"), ("^^", "C-^"), ("C-_", "C-_"),
    ("M-x", "M-x"), ("m-D", "M-D"), ("M-x M-y", "M-x M-y"),
    ("C-b d", "C-b d"), ("  C-a   C-a ", "C-a C-a"), ("C-b Space", "C-b Space"), ("C-b D", "C-b D"),
    ("tmux", "C-b d"), ("Tmux", "C-b d"), ("screen", "C-a d"), ("shpool", "C-Space C-q"),
    ("none", "none"),
])
def test_a_key_is_read_and_spelled(text, spelled):
    assert parse(text).text == spelled
    assert parse(spelled).text == spelled


@pytest.mark.parametrize("text", [
    "", " ", "d", "d d", "^", "C-", "M-", "C-M-x", "M-C-\\", "C-b d e", "none none", "byobu",
    "C-[", "^[", "C-m", "C-i", "C-?", "C-1", "C-é", "é", "M-[", "M-O", "M-P", "M-]",
    "Ctrl-a", "C-ab", "F1", "C-b Escape", "\x1c", "C-b \x1c",
])
def test_what_is_no_key_is_refused_with_what_is_accepted(text):
    with pytest.raises(errors.UsageError) as caught:
        parse(text)
    assert repr(text) in caught.value.message
    for accepted in ("C-x", "^x", "M-x", "C-b d", "tmux", "screen", "shpool", "none"):
        assert accepted in caught.value.hint


def test_every_preset_can_be_parsed():
    for name in detachkey.PRESETS:
        parse(name)
    assert parse(DEFAULT).text == "C-\\"


# --- one key ------------------------------------------------------------------------------

@pytest.mark.parametrize("key, shape", [(key, shape) for key in SHAPES for shape in SHAPES[key]])
@pytest.mark.parametrize("before, after", [
    (b"", b""), (b"typed", b"rest\x1c"), (b"\x1b[A\x1b[92u", b"\x1b[B"),
])
def test_every_shape_of_a_key_is_found_split_at_every_byte(key, shape, before, after):
    assert_found(parse(key), before, shape, after)


@pytest.mark.parametrize("data", NOT_THE_KEY)
def test_another_key_passes_unchanged_split_at_every_byte(data):
    key = parse(DEFAULT)
    for around in (data, b"a" + data + b"b", data + data):
        for at in range(len(around) + 1):
            assert fed(Matcher(key), around[:at], around[at:]) == (around, None)


@pytest.mark.parametrize("release", [b"\x1b[92;5:3u", b"\x1b[92:124;69:3u", b"\x1b[92;5:3;28u"])
def test_the_release_of_the_key_neither_detaches_nor_arrives(release):
    for at in range(len(release) + 1):
        reads = b"a" + release[:at], release[at:] + b"b"
        assert fed(Matcher(parse(DEFAULT)), *reads) == (b"ab", None)
    assert fed(Matcher(parse(DEFAULT)), b"\x1b[97;5:3u") == (b"\x1b[97;5:3u", None)


def test_escape_and_the_key_at_once_forwards_escape_and_detaches():
    assert_found(parse(DEFAULT), b"\x1b", b"\x1c", b"")
    assert_found(parse(DEFAULT), b"\x1b[9", b"\x1c", b"2;5u")


def test_none_passes_everything_at_once():
    matcher = Matcher(parse("none"))
    assert matcher.feed(b"\x1c\x1b[92;5u\x1b") == (b"\x1c\x1b[92;5u\x1b", False, b"")
    assert not matcher.is_holding_escape and matcher.flush() == b""


# --- holding and giving up -------------------------------------------------------------------

def test_the_escape_key_is_held_until_the_caller_gives_it_up():
    matcher = Matcher(parse(DEFAULT))
    assert matcher.feed(b"x\x1b") == (b"x", False, b"")
    assert matcher.is_holding_escape
    assert matcher.flush() == b"\x1b"
    assert not matcher.is_holding_escape and matcher.flush() == b""
    assert matcher.feed(b"[92;5u") == (b"[92;5u", False, b"")
    assert matcher.feed(b"\x1c") == (b"", True, b"")


def test_nothing_is_held_after_a_complete_key():
    matcher = Matcher(parse(DEFAULT))
    for data in (b"x", b"\x1b[A", b"\x1bx", b"\x1bOP", b"\x1b[200~", b"paste\x1b"):
        assert matcher.feed(data) == (data, False, b"")
        assert not matcher.is_holding_escape


def test_a_sequence_longer_than_any_key_is_not_held():
    matcher = Matcher(parse(DEFAULT))
    data = b"\x1b[" + b"9" * 5000
    forward, is_detach, _ = matcher.feed(data)
    assert (forward, is_detach) == (data, False)


# --- chords ---------------------------------------------------------------------------------

@pytest.mark.parametrize("first", SHAPES["C-b"])
@pytest.mark.parametrize("name, second", [
    (name, shape) for name in SECONDS for shape in SECONDS[name]
])
def test_a_chord_is_found_in_every_shape(first, name, second):
    assert_found(parse("C-b " + name), b"typed", first + second, b"rest")


@pytest.mark.parametrize("report", REPORTS)
def test_reports_and_releases_between_the_keys_do_not_break_a_chord(report):
    key = parse("C-b d")
    assert_found(key, b"", b"\x02" + report + report + b"d", b"rest")
    assert fed(Matcher(key), b"\x02" + report, b"x") == (b"\x02" + report + b"x", None)


@pytest.mark.parametrize("first", SHAPES["C-b"])
def test_the_first_key_twice_sends_it_once(first):
    for at in range(2 * len(first)):
        reads = (first + first)[:at], (first + first)[at:]
        assert fed(Matcher(parse("C-b d")), *reads) == (first, None)
    assert fed(Matcher(parse("C-b d")), first + first + b"d") == (first + b"d", None)


@pytest.mark.parametrize("other", [
    b"x", b"D", b"\x1b[A", b"\x1bd", b"\x1b[101;5u", b"\xc3\xa9", b"\r",
])
def test_the_first_key_and_another_sends_both(other):
    for at in range(len(other) + 1):
        reads = b"a\x02" + other[:at], other[at:] + b"d"
        assert fed(Matcher(parse("C-b d")), *reads) == (b"a\x02" + other + b"d", None)


def test_the_first_key_is_held_for_as_long_as_it_takes_and_is_not_an_escape():
    matcher = Matcher(parse("C-b d"))
    assert matcher.feed(b"\x02") == (b"", False, b"")
    assert not matcher.is_holding_escape
    for _ in range(10):
        assert matcher.feed(b"") == (b"", False, b"")
    assert matcher.feed(b"d") == (b"", True, b"")


def test_escape_after_the_first_key_is_another_key_when_nothing_follows():
    matcher = Matcher(parse("C-b d"))
    assert matcher.feed(b"\x02\x1b") == (b"", False, b"")
    assert matcher.is_holding_escape
    assert matcher.flush() == b"\x02\x1b"
    assert matcher.feed(b"d") == (b"d", False, b"")


def test_what_is_held_with_a_chord_is_bounded():
    matcher = Matcher(parse("C-b d"))
    data = b"\x02" + b"\x1b[<35;10;5M" * 2000
    forward, is_detach, _ = matcher.feed(data)
    assert not is_detach and forward + matcher.flush() == data
    assert forward


# --- pastes ----------------------------------------------------------------------------------

@pytest.mark.parametrize("inside", [
    b"\x1c", b"a\x1b[92;5ub", b"\x1b[201\x1c~", b"\x1b[200~\x1c", b"", b"\x1b[20",
])
def test_the_key_inside_a_paste_does_not_detach_and_after_it_does(inside):
    paste = b"\x1b[200~" + inside + b"\x1b[201~"
    assert_found(parse(DEFAULT), paste, b"\x1c", b"rest")
    assert_found(parse("M-x"), b"a" + paste + b"b", b"\x1bx", b"rest")


def test_a_paste_is_never_held():
    matcher = Matcher(parse(DEFAULT))
    matcher.feed(b"\x1b[200~")
    assert matcher.is_pasting
    for byte in (b"\x1b", b"[", b"2", b"0", b"1", b"~"):
        assert matcher.feed(byte) == (byte, False, b"")
        assert matcher.flush() == b""
    assert not matcher.is_pasting


def test_a_paste_breaks_a_chord():
    data = b"\x02\x1b[200~d\x1b[201~d"
    assert fed(Matcher(parse("C-b d")), data) == (data, None)


def test_a_paste_without_an_end_can_be_ended_by_the_caller():
    matcher = Matcher(parse(DEFAULT))
    assert matcher.feed(b"\x1b[200~\x1c") == (b"\x1b[200~\x1c", False, b"")
    matcher.end_paste()
    assert matcher.feed(b"\x1c") == (b"", True, b"")


# --- anything --------------------------------------------------------------------------------

fragments = st.sampled_from(
    NOT_THE_KEY + REPORTS + [b"\x1b[", b"92", b";5", b"u", b"~", b"\x1b[200~", b"\x1b[201~"])
no_key = st.binary(max_size=4).map(lambda data: data.replace(b"\x1c", b""))
harmless = st.lists(fragments | no_key, max_size=12)
keys = st.sampled_from(
    [b"\x1c", b"\x02", b"d", b"\x1b[92;5u", b"\x1b[98;5u", b"\x1bx", b"\x1b[92;5:3u"])
anything = st.lists(fragments | keys | st.binary(max_size=4), max_size=12)
SOME_KEYS = ["C-\\", "C-b d", "C-b C-b", "M-x", "M-x x", "C-Space C-q", "none"]


def cut(data, at):
    at = sorted({min(i, len(data)) for i in at})
    return [data[a:b] for a, b in zip([0] + at, at + [len(data)])]


@given(harmless, st.lists(st.integers(0, 60), max_size=6))
def test_input_without_the_key_passes_unchanged_whatever_the_reads(reads, at):
    data = b"".join(reads)
    if any(shape in data for shape in (b"92;5u", b"27;5;92~")):      # put together by chance
        return
    assert fed(Matcher(parse(DEFAULT)), *cut(data, at)) == (data, None)
    assert fed(Matcher(parse(DEFAULT)), *reads) == (data, None)


@given(anything, st.sampled_from(SOME_KEYS), st.lists(st.integers(0, 60), max_size=6))
@example([b"\x1b[200~", b"\x1b[20", b"1~", b"\x1c"], "C-\\", [8, 10])
def test_the_reads_make_no_difference(reads, name, at):
    data = b"".join(reads)
    whole = fed(Matcher(parse(name)), data)
    assert fed(Matcher(parse(name)), *cut(data, at)) == whole
    assert fed(Matcher(parse(name)), *[data[i:i + 1] for i in range(len(data))]) == whole


@given(anything, st.sampled_from(["C-b d", "C-Space C-q"]))
def test_of_a_chord_only_repeated_first_keys_are_ever_missing(reads, name):
    data = b"".join(reads)
    forwarded, rest = fed(Matcher(parse(name)), data)
    at = 0
    for byte in forwarded:
        at = data.index(byte, at) + 1
    assert rest is None or data.endswith(rest)
