"""Named keys: the tables are whole, words become the bytes that xterm sends, the rest is refused."""

import itertools
import os

import pytest
from hypothesis import given, strategies as st

from ptyguard_core import keys
from ptyguard_core.errors import UsageError

ESC = b"\x1b"
NAMES = [name for key in keys.KEYS for name in key.names]
# Lone surrogates below U+DC80 come from no argv, but from whoever uses the Python API.
words_of_any_kind = st.lists(st.text() | st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF)
                             | st.sampled_from(NAMES))


def pressed(*words, is_application=False):
    return keys.encode(words, is_application)


def refusal(*words, **options):
    with pytest.raises(UsageError) as caught:
        keys.encode(words, False, **options)
    return caught.value


# --- the tables -----------------------------------------------------------------------------------


def test_no_name_means_two_keys():
    assert len({name.lower() for name in NAMES}) == len(NAMES)


def test_no_name_is_one_character_or_begins_like_a_prefix():
    for name in NAMES:
        assert len(name) > 1 and name[1] != "-" and name[0] != "^" and name.isascii()


# tmux(1), "KEY BINDINGS", as its key-string.c has them.
@pytest.mark.parametrize("name", """
    Up Down Left Right BSpace BTab DC Delete End Enter Escape Home IC Insert NPage PageDown PgDn
    PPage PageUp PgUp Space Tab F1 F2 F3 F4 F5 F6 F7 F8 F9 F10 F11 F12 KP/ KP* KP- KP7 KP8 KP9 KP+
    KP4 KP5 KP6 KP1 KP2 KP3 KPEnter KP0 KP.""".split())
def test_every_name_of_tmux_is_known(name):
    assert pressed(name)


@pytest.mark.parametrize("word, data", [
    ("Enter", b"\r"), ("Tab", b"\t"), ("Escape", ESC), ("Space", b" "), ("BSpace", b"\x7f"),
    ("BTab", b"\x1b[Z"), ("Delete", b"\x1b[3~"), ("DC", b"\x1b[3~"), ("Insert", b"\x1b[2~"),
    ("IC", b"\x1b[2~"), ("PageUp", b"\x1b[5~"), ("PgUp", b"\x1b[5~"), ("PPage", b"\x1b[5~"),
    ("PageDown", b"\x1b[6~"), ("PgDn", b"\x1b[6~"), ("NPage", b"\x1b[6~"),
    ("F1", b"\x1bOP"), ("F4", b"\x1bOS"), ("F5", b"\x1b[15~"), ("F6", b"\x1b[17~"),
    ("F10", b"\x1b[21~"), ("F11", b"\x1b[23~"), ("F12", b"\x1b[24~"), ("F13", b"\x1b[1;2P"),
    ("F20", b"\x1b[19;2~"), ("F24", b"\x1b[24;2~"),
    ("KP0", b"0"), ("KP.", b"."), ("KP-", b"-"), ("KPEnter", b"\r"),
])
def test_a_named_key_is_what_xterm_sends_in_either_mode(word, data):
    assert pressed(word) == pressed(word, is_application=True) == data
    assert not keys.wants_mode([word])


@pytest.mark.parametrize("word, final", [
    ("Up", b"A"), ("Down", b"B"), ("Right", b"C"), ("Left", b"D"), ("Home", b"H"), ("End", b"F")])
def test_a_cursor_key_honours_application_cursor_mode_unless_it_is_modified(word, final):
    assert pressed(word) == b"\x1b[" + final
    assert pressed(word, is_application=True) == b"\x1bO" + final
    assert keys.wants_mode(["x", word])
    assert pressed("C-" + word, is_application=True) == b"\x1b[1;5" + final
    assert not keys.wants_mode(["C-" + word, "Enter"])


@pytest.mark.parametrize("prefix, number", [
    ("S-", 2), ("M-", 3), ("M-S-", 4), ("C-", 5), ("C-S-", 6), ("C-M-", 7), ("C-M-S-", 8), ("^", 5),
    ("s-M-", 4), ("C-C-", 5), ("^M-", 7), ("M-^", 7)])
@pytest.mark.parametrize("word, sequence", [
    ("Up", "\x1b[1;%dA"), ("Home", "\x1b[1;%dH"), ("F1", "\x1b[1;%dP"), ("F5", "\x1b[15;%d~"),
    ("Delete", "\x1b[3;%d~"), ("PgUp", "\x1b[5;%d~")])
def test_modifiers_of_a_key_with_a_sequence_are_a_parameter(prefix, number, word, sequence):
    assert pressed(prefix + word) == (sequence % number).encode()


def test_function_keys_from_13_on_are_shift_and_the_first_twelve():
    for number in range(1, 13):
        for prefix in ("", "C-", "M-", "C-M-"):
            assert pressed(f"{prefix}F{number + 12}") == pressed(f"{prefix}S-F{number}")


@pytest.mark.parametrize("word, data", [
    ("a", b"a"), ("A", b"A"), ("-", b"-"), ("^", b"^"), (" ", b" "), ("\t", b"\t"),
    ("C-a", b"\x01"), ("C-A", b"\x01"), ("c-a", b"\x01"), ("^a", b"\x01"), ("C-c", b"\x03"),
    ("C-i", b"\t"), ("C-m", b"\r"), ("C-z", b"\x1a"),
    ("C-@", b"\0"), ("C-Space", b"\0"), ("^@", b"\0"), ("C-[", ESC), ("^[", ESC),
    ("C-\\", b"\x1c"), ("C-]", b"\x1d"), ("C-^", b"\x1e"), ("^^", b"\x1e"), ("C-_", b"\x1f"),
    ("C-/", b"\x1f"), ("C--", b"\x1f"), ("C-?", b"\x7f"), ("^?", b"\x7f"), ("C-2", b"\0"),
    ("C-3", ESC), ("C-8", b"\x7f"), ("C-BSpace", b"\b"),
    ("M-x", b"\x1bx"), ("m-x", b"\x1bx"), ("M-X", b"\x1bX"), ("M--", b"\x1b-"),
    ("M-C-x", b"\x1b\x18"), ("C-M-x", b"\x1b\x18"), ("C-M-Space", b"\x1b\0"),
    ("M-Enter", b"\x1b\r"), ("M-BSpace", b"\x1b\x7f"), ("M-Escape", b"\x1b\x1b"),
    ("M-Tab", b"\x1b\t"), ("M-KP5", b"\x1b5"), ("M-BTab", b"\x1b\x1b[Z"),
    ("S-a", b"A"), ("S-A", b"A"), ("M-S-a", b"\x1bA"), ("S-Tab", b"\x1b[Z"),
    ("\N{LATIN SMALL LETTER E WITH ACUTE}", b"\xc3\xa9"),
    ("S-\N{LATIN SMALL LETTER E WITH ACUTE}", b"\xc3\x89"),
    ("M-\N{SNOWMAN}", b"\x1b\xe2\x98\x83"), ("\N{PILE OF POO}", b"\xf0\x9f\x92\xa9"),
    ("\udcff", b"\xff"), ("M-\udc80", b"\x1b\x80"),
])
def test_a_character_and_its_modifiers(word, data):
    assert pressed(word) == pressed(word, is_application=True) == data


def test_keys_follow_each_other_with_nothing_between():
    assert pressed("a", "Space", "Enter", "C-c", "Up") == b"a \r\x03\x1b[A"
    assert keys.pieces(["ls", "Up", "Enter"], True, True) == [b"ls", b"\x1bOA", b"\r"]
    assert pressed() == b"" and not keys.wants_mode([])


# What terminfo promises to the programs of a session, whose TERM is xterm-256color.  Not kbs:
# it is what the distribution made of it.  Application mode, as smkx switches it on.
CAPABILITIES = {
    "kcuu1": "Up", "kcud1": "Down", "kcub1": "Left", "kcuf1": "Right", "khome": "Home",
    "kend": "End", "kich1": "Insert", "kdch1": "Delete", "kpp": "PageUp", "knp": "PageDown",
    "kcbt": "BTab", "kLFT": "S-Left", "kRIT": "S-Right", "kHOM": "S-Home", "kEND": "S-End",
    "kDC": "S-Delete", "kPRV": "S-PageUp", "kNXT": "S-PageDown", "kUP5": "C-Up", "kDN3": "M-Down",
    "kLFT7": "C-M-Left", "kHOM6": "C-S-Home", "kDC4": "M-S-Delete",
}
CAPABILITIES.update({f"kf{number}": f"F{number}" for number in range(1, 25)})
CAPABILITIES.update({f"kf{number + 24}": f"C-F{number}" for number in range(1, 25)})
CAPABILITIES.update({f"kf{number + 48}": f"M-F{number}" for number in range(1, 13)})


def test_keys_are_those_that_terminfo_promises():
    curses = pytest.importorskip("curses")
    with open(os.devnull, "wb") as null:
        try:
            curses.setupterm("xterm-256color", null.fileno())
        except curses.error as error:
            pytest.skip(f"no terminfo for xterm-256color: {error}")
    found = {name: curses.tigetstr(name) for name in CAPABILITIES}
    promised = {name: data for name, data in found.items() if data}
    assert len(promised) > 30
    assert promised == {name: pressed(CAPABILITIES[name], is_application=True)
                        for name in promised}


# --- what is no key -------------------------------------------------------------------------------


@pytest.mark.parametrize("word, nearest", [
    ("Entr", "Enter"), ("Upp", "Up"), ("C-Upp", "C-Up"), ("S-PageUpp", "S-PageUp"),
    ("Return", "Enter"), ("ESC", "Escape"), ("Backspace", "BSpace"), ("del", "Delete"),
    ("Ctrl-C", "C-c"), ("ctrl+alt+Del", "C-M-Delete"), ("<C-x>", "C-x"), ("Alt-X", "M-X"),
    ("Shift-Tab", "S-Tab"), ("C-Return", "Enter"),
])
def test_an_unknown_key_names_the_nearest(word, nearest):
    error = refusal("Enter", word)
    assert error.message == f"unknown key: {word!r} (nearest: {nearest})"
    assert error.exit_code == 2 and "help key" in error.hint
    pressed(nearest)


@pytest.mark.parametrize("word", ["", "qqqq", "ls -l", "F0", "C-", "M-C-", "x-y", "0x1b", "foo\nbar",
                                  "\N{KELVIN SIGN}P0", "\N{LATIN SMALL LETTER LONG S}-F1"])
def test_what_is_no_key_is_refused_and_typed_as_it_is_where_text_is_taken(word):
    assert refusal(word).message.startswith(f"unknown key: {word!r}")
    assert keys.encode(["a", word, "Up"], True, takes_text=True) == b"a" + word.encode() + b"\x1bOA"


@pytest.mark.parametrize("word", [
    "S-Enter", "C-Enter", "C-Tab", "C-Escape", "S-Space", "S-BSpace", "S-1", "C-1", "C-#", "C-S-a",
    "C-S-Tab", "C-BTab", "C-KP5", "S-KPEnter", "C-\N{LATIN SMALL LETTER E WITH ACUTE}",
    "S-\N{LATIN SMALL LETTER SHARP S}", "S-\udcff"])
def test_a_modifier_without_a_code_is_refused_rather_than_dropped(word):
    for takes_text in (False, True):
        error = refusal(word, takes_text=takes_text)
        assert error.message.startswith("a terminal has no code for this key with these modifiers")


def test_a_word_in_a_refusal_is_cut():
    assert len(refusal("x" * 100000).message) < 120


def test_the_first_wrong_word_is_the_one_named():
    assert "'two'" in refusal("a", "two", "three").message


@given(words_of_any_kind, st.booleans(), st.booleans())
def test_any_words_are_bytes_or_a_refusal(words, is_application, takes_text):
    try:
        data = keys.encode(words, is_application, takes_text)
    except UsageError as error:
        assert error.message and error.exit_code == 2
    else:
        assert data == b"".join(keys.pieces(words, is_application, takes_text))


@given(words_of_any_kind)
def test_the_mode_is_wanted_exactly_where_it_makes_a_difference(words):
    try:
        differs = keys.encode(words, False, True) != keys.encode(words, True, True)
    except UsageError:
        return
    assert keys.wants_mode(words) == differs


@given(st.data())
def test_every_name_is_read_in_any_case_with_modifiers_in_any_order(data):
    name = data.draw(st.sampled_from(NAMES))
    prefixes = data.draw(st.lists(st.sampled_from(["C-", "M-", "S-", "^", "c-", "m-", "s-"])))
    other = "".join(data.draw(st.sampled_from([c.lower(), c.upper()])) for c in name)
    outcomes = set()
    for order in (prefixes, prefixes[::-1], sorted(set(prefixes))):
        for spelled in (name, other):
            try:
                outcomes.add(pressed("".join(order) + spelled))
            except UsageError as error:
                outcomes.add(error.message.partition(":")[0])
    assert len(outcomes) == 1


@given(st.characters(blacklist_categories=("Cs",)))
def test_every_single_character_is_itself(char):
    assert pressed(char) == char.encode()
    assert pressed("M-" + char) == ESC + char.encode()


@given(st.text(), st.sampled_from(["", "C-", "M-", "ctrl-", "<"]))
def test_what_is_named_as_nearest_is_a_key(text, prefix):
    try:
        pressed(prefix + text)
    except UsageError as error:
        near = error.message.rpartition(" (nearest: ")[2][:-1]
        if error.message.endswith(f" (nearest: {near})"):
            assert pressed(near)


# --- literal words and bytes in hexadecimal -------------------------------------------------------


def test_literal_words_are_joined_by_nothing_and_mean_no_keys():
    assert keys.literal(["Enter", "", "a b", "C-c", "\udcff"]) == b"Entera bC-c\xff"
    with pytest.raises(UsageError, match="cannot be typed"):
        keys.literal(["\ud800"])


@pytest.mark.parametrize("word, data", [
    ("1b", ESC), ("1B", ESC), ("0x1b", ESC), ("0X1B", ESC), ("d", b"\r"), ("0xd", b"\r"),
    ("00", b"\0"), ("1b5b41", b"\x1b[A"), ("0x1b5b41", b"\x1b[A")])
def test_hex_words_are_bytes(word, data):
    assert keys.hex_keys([word]) == data
    assert keys.hex_keys([word, "ff"]) == data + b"\xff"


@pytest.mark.parametrize("word", ["", "0x", "1b5", "1g", "x1b", "1b 5b", " 1b", "-1", "1b\n", "0x0x1b",
                                  "\N{ARABIC-INDIC DIGIT ONE}", "1_0", "+1"])
def test_what_is_no_hex_is_refused(word):
    with pytest.raises(UsageError) as caught:
        keys.hex_keys(["00", word])
    assert caught.value.message == f"not bytes in hexadecimal: {word!r}"


@given(st.lists(st.binary(min_size=1)), st.sampled_from(["", "0x", "0X"]), st.booleans())
def test_bytes_in_hex_come_back(parts, prefix, is_upper):
    words = [prefix + (part.hex().upper() if is_upper else part.hex()) for part in parts]
    assert keys.hex_keys(words) == b"".join(parts)


@given(st.text())
def test_any_hex_word_is_bytes_or_a_refusal(word):
    try:
        assert keys.hex_keys([word])
    except UsageError:
        pass


# --- the list -------------------------------------------------------------------------------------


def test_the_list_for_programs_has_every_key_with_its_bytes():
    rows = keys.listing()
    assert [row["name"] for row in rows] == [key.names[0] for key in keys.KEYS]
    for row in rows:
        for name in [row["name"]] + row["aliases"]:
            assert pressed(name).hex() == row["hex"]
            assert pressed(name, is_application=True).hex() == row["hex_application"]
    assert [row["prefix"] for row in keys.modifiers_listing()] == ["C-", "M-", "S-"]


def test_the_list_for_people_has_every_name_and_fits_the_page():
    lines = keys.list_lines()
    assert max(map(len, lines)) <= 80 and all(line.isascii() for line in lines)
    spelled = set(itertools.chain.from_iterable(
        word.split("=") for line in lines for word in line.split()))
    assert set(NAMES) <= spelled
    for prefix, _, _ in keys.MODIFIERS:
        assert any(line.split()[:1] == [prefix] for line in lines)
