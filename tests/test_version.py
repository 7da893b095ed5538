"""Versions: SemVer 2.0 order, describe suffixes, ranges, and errors with a position."""

import configparser
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings, strategies as st

from ptyguard_core import errors, version
from ptyguard_core.version import MalformedVersion, compare, parse, satisfies, versions_match

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Each is strictly later than the one before it.
LADDER = """
    0.0.0-0 0.0.0 0.0.1 0.1.0 0.10.0
    1.0.0-0 1.0.0-1 1.0.0-2 1.0.0-10 1.0.0-99999999999999999999 1.0.0--
    1.0.0--1 1.0.0-0a 1.0.0-A 1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.1.0 1.0.0-alpha.beta
    1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-dirty
    1.0.0-rc.1 1.0.0-rc.1-1-gabcd 1.0.0-rc.1-4-gabcd 1.0.0-rc.1-4-gabcd-dirty
    1.0.0-rc.1-12-gabcd 1.0.0-rc.1.1 1.0.0-rc.2 1.0.0-rc.10
    1.0.0 1.0.0-0-gabcd 1.0.0-0-gabcd-dirty 1.0.0-2-gabcd 1.0.0-2-gabcd-dirty
    1.0.0-9-gabcd 1.0.0-10-gabcd 1.0.0-10-gabcd-dirty
    1.0.1-alpha 1.0.1 1.2.0 1.10.0 2.0.0-rc.1 2.0.0 10.0.0 18446744073709551616.0.0
""".split()

MALFORMED = [
    # text, position
    ("", 0), ("v", 1), ("vv1.2.3", 1), ("V1.2.3", 0), (" 1.2.3", 0), ("1.2.3 ", 5), ("1.2.3\n", 5),
    ("1", 1), ("1.2", 3), ("1.", 2), ("1.2.", 4), ("1.2.x", 4), ("1..3", 2), ("-1.2.3", 0),
    ("01.2.3", 0), ("1.02.3", 2), ("1.2.03", 4), ("1.2.3.4", 5), ("1.2.3_4", 5),
    ("1.2.3-", 6), ("1.2.3-a..b", 8), ("1.2.3-a.", 8), ("1.2.3-01", 6), ("1.2.3-a.00", 8),
    ("1.2.3-a_b", 7), ("1.2.3+", 6), ("1.2.3-a+", 8), ("1.2.3+a+b", 7), ("1.2.3+a..b", 8),
    ("1.2.\u0663", 4), ("\u0661.2.3", 0), ("1.2.3-\u00e9", 6), ("1.2.3\x00", 5), ("1.2-4-gabcd", 3),
    ("latest", 0), ("v1.2-4-gabcd-dirty", 4),
]


# --- order ----------------------------------------------------------------------

def test_each_step_of_the_ladder_is_later_than_all_before_it():
    for low, earlier in enumerate(LADDER):
        assert compare(earlier, earlier) == 0
        for later in LADDER[low + 1:]:
            assert compare(earlier, later) == -1, (earlier, later)
            assert compare(later, earlier) == 1, (earlier, later)


def test_leading_v_is_ignored_in_order_and_in_match():
    assert compare("v1.2.3", "1.2.3") == 0
    assert compare("v1.2.3", "v1.2.4") == -1
    assert versions_match("v1.2.3", "1.2.3")
    assert versions_match("v1.2.3-4-gabcd", "1.2.3-4-gabcd")


def test_build_metadata_has_no_place_in_the_order():
    assert compare("1.2.3+a", "1.2.3+b") == 0
    assert compare("1.2.3+a", "1.2.3") == 0
    assert compare("1.2.3-rc.1+a", "1.2.3") == -1
    assert compare("1.2.3+001.-", "1.2.3") == 0


def test_build_of_a_later_commit_is_later_than_its_release_and_not_a_prerelease():
    assert compare("1.2.3-4-gabcd", "1.2.3") == 1
    assert compare("1.2.3-4-gabcd", "1.2.4-alpha") == -1


def test_describe_suffix_of_a_prerelease_tag_stays_before_the_release():
    assert compare("v1.2.3-rc.1-4-gabcd", "1.2.3-rc.1") == 1
    assert compare("v1.2.3-rc.1-4-gabcd", "1.2.3-rc.2") == -1
    assert compare("v1.2.3-rc.1-4-gabcd", "1.2.3") == -1


def test_commits_since_the_tag_are_counted_not_spelled():
    assert compare("1.2.3-9-gffff", "1.2.3-10-g0000") == -1


def test_two_commits_at_the_same_distance_are_neither_earlier_nor_later():
    assert compare("1.2.3-4-gabcd", "1.2.3-4-gbeef") == 0
    assert compare("1.2.3-4-gbeef", "1.2.3-4-gabcd-dirty") == -1


def test_suffix_is_seen_behind_and_before_build_metadata():
    assert parse("1.2.3+linux-4-gabcd").base == "1.2.3+linux"
    assert parse("1.2.3-4-gabcd+linux").base == "1.2.3+linux"
    assert compare("1.2.3-4-gabcd+linux", "1.2.3-4-gabcd") == 0


# --- what is a suffix and what is not ---------------------------------------------

def test_suffix_is_taken_apart():
    found = parse("v1.2.3-rc.1-14-g0ABcdef-dirty")
    assert (found.text, found.base) == ("1.2.3-rc.1-14-g0ABcdef-dirty", "1.2.3-rc.1")
    assert (found.release, found.prerelease) == (("1", "2", "3"), ("rc", "1"))
    assert (found.commits, found.commit, found.is_dirty) == ("14", "0ABcdef", True)


@pytest.mark.parametrize("text", [
    "1.2.3-4-gabc",             # three digits
    "1.2.3-4-gabcx",            # not hexadecimal
    "1.2.3-4-abcd",             # no g
    "1.2.3-gabcd",              # no count
    "1.2.3-x-gabcd",
    "1.2.3-04-gabcd",           # git counts without leading zeros
    "1.2.3-dirty",
    "1.2.3-4-gabcd-dirty-dirty",
    "1.2.3-4-gabcd.1",
])
def test_anything_less_than_a_suffix_is_a_prerelease(text):
    assert parse(text).commits is None
    assert compare(text, "1.2.3") == -1


@pytest.mark.parametrize("text", ["1.2.3--4-gabcd", "1.2.3-01-4-gabcd", "1.2.3-a.-4-gabcd"])
def test_suffix_whose_removal_leaves_no_version_was_part_of_the_prerelease(text):
    assert parse(text).commits is None
    assert compare(text, "1.2.3") == -1


# --- match ------------------------------------------------------------------------

@pytest.mark.parametrize("a, b, expected", [
    ("1.2.3", "1.2.3", True),
    ("1.2.3", "1.2.4", False),
    ("1.2.3", "1.2.3-rc.1", False),
    ("1.2.3-rc.1", "1.2.3-rc.1", True),
    ("1.2.3", "1.2.3-4-gabcd", True),
    ("1.2.3", "1.2.3-4-gabcd-dirty", True),
    ("1.2.3", "1.2.4-4-gabcd", False),
    ("1.2.3-rc.1", "1.2.3-rc.1-4-gabcd", True),
    ("1.2.3", "1.2.3-rc.1-4-gabcd", False),
    ("1.2.3-4-gabcd", "1.2.3-4-gabcd", True),
    ("1.2.3-4-gabcd", "1.2.3-4-gabcd-dirty", False),
    ("1.2.3-4-gabcd", "1.2.3-5-gabcd", False),
    ("1.2.3-4-gabcd", "1.2.3-4-gbeef", False),
    ("1.2.3", "1.2.3-4-gabc", False),           # three hex digits are no suffix
    ("1.2.3", "1.2.3-dirty", False),
    ("1.2.3+a", "1.2.3+a", True),
    ("1.2.3+a", "1.2.3+b", False),
    ("1.2.3+a", "1.2.3+a-4-gabcd", True),
])
def test_match(a, b, expected):
    assert versions_match(a, b) is expected
    assert versions_match(b, a) is expected


# --- ranges -----------------------------------------------------------------------

@pytest.mark.parametrize("text, range_text, expected", [
    ("1.2.3", ">=1.2.3,<2", True),
    ("1.2.2", ">=1.2.3,<2", False),
    ("2.0.0", ">=1.2.3,<2", False),
    ("1.9.9", " >= 1.2.3 , < 2 ", True),
    ("1.2.3", "==1.2.3", True),
    ("1.2.3+a", "==1.2.3", True),
    ("1.2.0", "==1.2", True),                   # a number left out is 0
    ("1.2.1", "==1.2", False),
    ("1.2.3-4-gabcd", "==1.2.3", False),
    ("1.2.3-4-gabcd", "==1.2.3-4-gabcd", True),
    ("1.2.3-4-gabcd", "==1.2.3-4-gbeef", False),
    ("1.2.3-4-gabcd", "!=1.2.3-4-gbeef", True),
    ("1.2.3", "!=1.2.3", False),
    ("1.2.3", "!=1.2.4", True),
    ("1.2.3", ">1.2.3", False),
    ("1.2.3-4-gabcd", ">1.2.3", True),
    ("1.2.3-4-gabcd", "<=1.2.3", False),
    ("1.2.3", "<=1.2.3", True),
    ("1.2.3-rc.1", "<1.2.3", True),
    ("2.0.0-rc.1", "<2", True),                 # the order and nothing else
    ("1.2.3", ">=v1.2.3", True),
    ("1.2.3", ">=v1", True),
    # ~= keeps all but the last number that was given
    ("1.4.0", "~=1.4", True),
    ("1.9.0", "~=1.4", True),
    ("1.3.9", "~=1.4", False),
    ("2.0.0", "~=1.4", False),
    ("2.0.0-rc.1", "~=1.4", False),
    ("1.4.5", "~=1.4.5", True),
    ("1.4.9", "~=1.4.5", True),
    ("1.4.4", "~=1.4.5", False),
    ("1.5.0", "~=1.4.5", False),
    ("1.4.5-2-gabcd", "~=1.4.5", True),
    ("1.4.5-rc.1", "~=1.4.5", False),
    ("1.4.5", "~=1.4.5-rc.1", True),
    # ^ keeps all up to the first that is not 0
    ("1.2.3", "^1.2.3", True),
    ("1.9.0", "^1.2.3", True),
    ("1.2.2", "^1.2.3", False),
    ("2.0.0", "^1.2.3", False),
    ("2.0.0-rc.1", "^1.2.3", False),
    ("1.2.3-rc.1", "^1.2.3", False),
    ("1.2.3", "^1.2.3-rc.1", True),
    ("0.2.9", "^0.2.3", True),
    ("0.3.0", "^0.2.3", False),
    ("0.2.2", "^0.2.3", False),
    ("1.0.0", "^0.2.3", False),
    ("0.0.3", "^0.0.3", True),
    ("0.0.3-1-gabcd", "^0.0.3", True),
    ("0.0.4", "^0.0.3", False),
    ("0.0.9", "^0.0", True),
    ("0.1.0", "^0.0", False),
    ("0.9.0", "^0", True),
    ("1.0.0", "^0", False),
    ("1.9.0", "^1", True),
    ("0.2.9", "^0.2", True),
    ("10.0.0", "^1", False),
])
def test_satisfies(text, range_text, expected):
    assert satisfies(text, range_text) is expected


@pytest.mark.parametrize("range_text, position", [
    ("", 0), (",", 0), (">=1,", 4), (">=1, ,<2", 5), ("1.2.3", 0), ("=1.2.3", 0), ("~1.2", 0),
    (">=", 2), (">= ", 2), (">=x", 2), ("  >=1.x", 6), (">=1.2.3,<2.0.0.1", 14), (">=1.02", 4),
    ("~=1", 3), ("~=1 ,<2", 3), ("~=", 2), ("^1.", 3), (">=1.2-rc.1", 5), (">=1-4-gabcd", 3),
    (">=1 <2", 3), ("==1.*", 4), (">=1.2.3-", 8), ("<vv2", 2), ("=>1", 0),
])
def test_malformed_range_is_told_with_its_position(range_text, position):
    with pytest.raises(MalformedVersion) as caught:
        satisfies("1.2.3", range_text)
    assert caught.value.position == position
    assert f"at position {position}" in str(caught.value)
    assert "malformed range" in str(caught.value)


def test_malformed_range_is_told_whatever_its_first_part_answers():
    with pytest.raises(MalformedVersion):
        satisfies("1.2.3", ">=9,nonsense")


# --- errors -----------------------------------------------------------------------

@pytest.mark.parametrize("text, position", MALFORMED)
def test_malformed_version_is_told_with_its_position(text, position):
    with pytest.raises(MalformedVersion) as caught:
        parse(text)
    assert caught.value.position == position
    assert f"at position {position}" in str(caught.value)


@pytest.mark.parametrize("call", [
    lambda bad: compare(bad, "1.2.3"), lambda bad: compare("1.2.3", bad),
    lambda bad: versions_match(bad, "1.2.3"), lambda bad: versions_match("1.2.3", bad),
    lambda bad: satisfies(bad, ">=1"),
])
def test_every_question_refuses_a_malformed_version_as_a_usage_error(call):
    with pytest.raises(errors.UsageError) as caught:
        call("1.2")
    assert caught.value.exit_code == 2
    assert caught.value.position == 3


def test_malformed_version_keeps_its_position_over_the_wire():
    with pytest.raises(MalformedVersion) as caught:
        parse("1.2.x")
    again = errors.from_wire(caught.value.to_wire())
    assert type(again) is MalformedVersion
    assert (again.position, again.message) == (4, caught.value.message)
    assert type(errors.from_wire({"kind": "usage", "message": "m"})) is errors.UsageError


def test_escape_sequences_in_a_version_do_not_reach_the_terminal():
    with pytest.raises(MalformedVersion) as caught:
        parse("1.2.3\x1b[2J")
    assert "\x1b" not in str(caught.value)


# --- ourselves --------------------------------------------------------------------

def test_our_version_is_well_formed_and_the_one_that_setup_cfg_names():
    setup = configparser.ConfigParser()
    setup.read(os.path.join(ROOT, "setup.cfg"))
    assert version.OURS == setup["metadata"]["version"]
    parse(version.OURS)


def test_our_version_stands_on_one_line_that_the_build_can_rewrite():
    with open(os.path.join(ROOT, "ptyguard_core", "version.py")) as source:
        assert sum(line.startswith("OURS = ") for line in source) == 1


def test_module_loads_neither_os_modules_nor_re():
    # -S: site may load any of them on its own account.
    code = ("import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1])\n"
            "import ptyguard_core.version\n"
            "print(sorted(set(sys.modules) - before))")
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", code, ROOT], check=True,
                            stdout=subprocess.PIPE, universal_newlines=True).stdout
    assert loaded == "['ptyguard_core', 'ptyguard_core.errors', 'ptyguard_core.version']\n"


# --- properties -------------------------------------------------------------------

unhurried = settings(deadline=None)      # a deadline measures the machine, not the code

numerals = st.one_of(st.integers(0, 3), st.integers(0, 10 ** 30)).map(str)
words = st.text("019aAgx-", min_size=1, max_size=6).filter(
    lambda word: not word.isdigit() or word == "0" or word[0] != "0")
dotted = st.lists(words, min_size=1, max_size=3).map(".".join)
cores = st.tuples(numerals, numerals, numerals).map(".".join)
bases = st.builds("{}{}".format, cores, st.one_of(st.just(""), dotted.map("-{}".format)))
suffixes = st.builds("-{}-g{}{}".format, numerals, st.text("0123456789abcdef", min_size=4, max_size=12),
                     st.sampled_from(["", "-dirty"]))
metadata = st.lists(st.text("019aZ-", min_size=1, max_size=4), min_size=1, max_size=3).map(
    lambda found: "+" + ".".join(found))
versions = st.builds("{}{}{}".format, st.sampled_from(["", "v"]), bases,
                     st.one_of(st.just(""), suffixes, metadata))


@unhurried
@given(versions, versions, versions)
def test_order_is_antisymmetric_and_transitive(a, b, c):
    assert compare(a, b) == -compare(b, a)
    low, middle, high = sorted([a, b, c], key=lambda text: parse(text).precedence())
    assert compare(low, middle) <= 0 and compare(middle, high) <= 0 and compare(low, high) <= 0


@unhurried
@given(bases, suffixes, metadata)
def test_suffix_is_later_than_its_base_and_matches_it(base, suffix, more):
    described = base + suffix
    assert parse(described).base == base
    assert compare(described, base) == 1
    assert versions_match(described, base)
    assert compare(described + more, described) == 0


@unhurried
@given(versions, versions)
def test_operators_agree_with_the_order(a, b):
    order = compare(a, b)
    assert satisfies(a, ">" + b) is (order > 0)
    assert satisfies(a, "<" + b) is (order < 0)
    assert satisfies(a, ">=" + b) is (order >= 0)
    assert satisfies(a, "<=" + b) is (order <= 0)
    assert satisfies(a, "==" + b) is not satisfies(a, "!=" + b)
    assert satisfies(a, "==" + a) and satisfies(a, "^" + a) and satisfies(a, "~=" + a)


@unhurried
@given(versions)
def test_match_is_reflexive_and_ignores_the_v(text):
    assert versions_match(text, text)
    assert versions_match(text, text[1:] if text[0] == "v" else "v" + text)


@unhurried
@given(st.one_of(st.text(max_size=30), st.text("v0123.-+gabcdirty", max_size=30)))
def test_any_text_is_a_version_or_an_error_with_a_position_in_it(text):
    try:
        assert parse(text).text in text
    except MalformedVersion as error:
        assert 0 <= error.position <= len(text)
        # Cutting the text at the position keeps the error or cures it, never moves it.
        try:
            parse(text[:error.position])
        except MalformedVersion as shorter:
            assert shorter.position <= error.position


@unhurried
@given(st.one_of(st.text(max_size=30), st.text("v0123.-+,<>=~^! ", max_size=30)))
def test_any_text_is_a_range_or_an_error_with_a_position_in_it(text):
    try:
        satisfies("1.2.3", text)
    except MalformedVersion as error:
        assert 0 <= error.position <= len(text)


@unhurried
@given(versions, st.data())
def test_truncated_version_is_never_read_past_its_end(text, data):
    cut = text[:data.draw(st.integers(0, len(text)))]
    try:
        parse(cut)
    except MalformedVersion as error:
        assert error.position <= len(cut)


def test_number_of_a_million_digits_is_compared_without_being_computed():
    huge = "9" * 1000000
    assert compare(huge + ".0.0", "1" + huge + ".0.0") == -1
    assert compare("1.0.0-" + huge, "1.0.0-1" + huge) == -1
