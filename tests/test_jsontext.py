"""JSON text: the same texts and values as the module `json`, without it."""

import json
import subprocess
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ptyguard_core import jsontext
from world import ROOT

SCALARS = some.none() | some.booleans() | some.integers() | some.floats() | some.text()
VALUES = some.recursive(SCALARS, lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
                        max_leaves=9)
OBJECTS = some.dictionaries(some.text(some.characters()), VALUES)   # lone surrogates among them


@pytest.fixture(autouse=True)
def json_is_not_loaded(monkeypatch):
    """As in a client: these tests have `json` loaded, and then it is used."""
    monkeypatch.setattr(jsontext, "sys", types.SimpleNamespace(modules={}))


def outcome(act):
    """What `act()` gives, as comparable text, or what it raises."""
    try:
        return repr(act())
    except (ValueError, RecursionError) as error:
        return type(error).__name__, str(error)


@pytest.mark.parametrize("separators", [jsontext.COMPACT, jsontext.SPACED])
@given(value=OBJECTS)
def test_what_is_written_is_what_json_writes(separators, value):
    assert jsontext.write(value, separators) == json.dumps(value, separators=separators)


@given(value=OBJECTS)
def test_what_is_read_is_what_json_reads(value):
    for text in (json.dumps(value), json.dumps(value, separators=jsontext.COMPACT, ensure_ascii=False)):
        assert repr(jsontext.read(text)) == repr(json.loads(text))


@given(text=some.text(some.sampled_from('{}[]:,"\\0123456789.eE+-truefalsnIity \n\t\x00\ud800')))
def test_text_that_is_not_well_formed_is_refused_in_the_same_words(text):
    for text in (text, "{" + text, '{"a": ' + text + "}"):
        assert outcome(lambda: jsontext.read(text)) == outcome(lambda: json.loads(text))


@pytest.mark.parametrize("text", ["", "{", "{}x", " {}", "[1]", '{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}',
                                  '{"a": 1, "a": 2}', '{"a": "\\ud800"}', '{"a": "\x01"}', '{"a":' * 100000])
def test_odd_texts_are_taken_and_refused_as_json_does(text):
    assert outcome(lambda: jsontext.read(text)) == outcome(lambda: json.loads(text))


@pytest.mark.parametrize("value", [{1: 2}, {None: 1}, {"a": (1, 2)}, {"a": float("nan")}, {"a": float("-inf")},
                                   {"a": type("Number", (int,), {})(3)}, ["x"], "x", 1e300, -0.0])
def test_odd_values_are_written_as_json_does(value):
    assert jsontext.write(value) == json.dumps(value)


def test_numbers_are_read_by_the_callers_rule():
    assert jsontext.read('{"a": [1, -20]}', parse_int=str) == {"a": ["1", "-20"]}


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="PyPy's JSON is behind the module")
def test_a_message_is_written_and_read_without_the_module_json():
    program = ("import sys\nsys.path.insert(0, sys.argv[1])\nfrom ptyguard_core import jsontext\n"
               "value = {'a': ['x', None, True, 1, 1.5]}\nassert jsontext.read(jsontext.write(value)) == value\n"
               "print('json' in sys.modules)")
    assert subprocess.run([sys.executable, "-I", "-S", "-c", program, ROOT], stdout=subprocess.PIPE,
                          check=True).stdout == b"False\n"


@pytest.mark.parametrize("text", ['{', '{"a"', '{"a":}', '{"a": 1,', '{"a": "', '{"a": tru}', '{"a": "\\u12"}'])
def test_what_is_not_well_formed_is_refused_in_the_same_words_where_json_was_not_loaded(text):
    program = ("import sys\nsys.path.insert(0, sys.argv[1])\nfrom ptyguard_core import jsontext\n"
               "try:\n    jsontext.read(sys.argv[2])\nexcept ValueError as error:\n    print(error)")
    said = subprocess.run([sys.executable, "-I", "-S", "-c", program, ROOT, text], stdout=subprocess.PIPE, check=True)
    with pytest.raises(ValueError) as expected:
        json.loads(text)
    assert said.stdout.decode().strip() == str(expected.value)
