"""JSON text: small objects written and read without the module `json`.

Importing `json` costs a command as much as everything else that it does (it compiles regular
expressions).  What is here gives the same texts and the same values, by the same C code
where CPython has it; whatever it does not know it leaves to `json`: other types, other
interpreters, text that is not well formed.
"""

import sys

try:
    from _json import encode_basestring_ascii as _quoted, make_scanner
except ImportError:             # PyPy has its own, behind `json`
    _quoted = make_scanner = None

COMPACT = (",", ":")
SPACED = (", ", ": ")           # as `json.dumps` writes it unasked


class _Unknown(Exception):
    """`json` is to do it."""


def write(value, separators=SPACED):
    """As `json.dumps(value, separators=separators)`."""
    if _quoted is not None and "json" not in sys.modules:       # who has loaded it has bulk to write
        try:
            return _text(value, *separators)
        except (_Unknown, RecursionError):
            pass
    import json
    return json.dumps(value, separators=separators)


def _text(value, comma, colon):
    kind = type(value)
    if kind is str:
        return _quoted(value)
    if kind is int:
        return repr(value)
    if kind is dict:
        return "{" + comma.join([_key(key) + colon + _text(item, comma, colon)
                                 for key, item in value.items()]) + "}"
    if kind is list or kind is tuple:
        return "[" + comma.join([_text(item, comma, colon) for item in value]) + "]"
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is float and value - value == 0.0:      # neither infinite nor no number
        return repr(value)
    raise _Unknown


def _key(key):
    if type(key) is not str:
        raise _Unknown
    return _quoted(key)


class _Reading:
    """What `_json.make_scanner` wants to know, as `json.JSONDecoder` has it."""

    strict = True
    object_hook = object_pairs_hook = None
    array_hook = None           # 3.15

    def __init__(self, parse_int, parse_float):
        self.parse_int = parse_int
        self.parse_float = parse_float
        self.memo = {}

    @staticmethod
    def parse_constant(name):
        """NaN and its like."""
        raise _Unknown


def read(text, parse_int=int, parse_float=float, parse_constant=None):
    """As `json.loads` with these; ValueError, RecursionError."""
    if make_scanner is not None and "json" not in sys.modules and text[:1] == "{":
        try:
            value, end = make_scanner(_Reading(parse_int, parse_float))(text, 0)
            if end == len(text):
                return value
        except (_Unknown, StopIteration, ValueError, SystemError, AttributeError, TypeError):
            # json says what is wrong, or takes it.  SystemError: what CPython's scanner would raise
            # is in a module that is not loaded, and then it raises nothing (_json.c, raise_errmsg).
            pass
    import json
    return json.loads(text, parse_int=parse_int, parse_float=parse_float, parse_constant=parse_constant)
