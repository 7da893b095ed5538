"""Versions: parse, order, match, satisfies; and which version this is.

A version here is SemVer 2.0, with or without a leading `v`, and may carry what
`git describe` appends for a build between two tags:

    v1.2.3-rc.1-4-g0abc123-dirty
     |     |    |  |       `- uncommitted changes
     |     |    |  `- the commit, abbreviated
     |     |    `- commits since the tag; what the tag says is the *base*
     |     `- pre-release
     `- release

Rule 1: a describe suffix is `-N-gHEX` with at least four hex digits, then
maybe `-dirty`.  It makes the version *later* than its base, where SemVer would
read a pre-release, which is earlier.  Nothing else is a suffix: `1.2.3-dirty`
is a pre-release named "dirty".
Rule 2: whatever SemVer 2.0 accepts is accepted.  Where taking the suffix away
leaves no version (`1.2.3--4-gabcd`), it was part of the pre-release.
Rule 3: order knows what history knows.  Two builds at the same distance from
one tag are neither earlier nor later, whatever their commits: a hash that
decided would make one of two branches "newer" by chance, and upgrade to it.
Rule 4: build metadata (`+x`) has no place in the order, but it is part of what
a version *is*: `versions_match` sees it.

Numbers stay text: compared by length, then by digits, they have no limit, and
a peer's hello with a million digits costs no more than reading it.
"""

OURS = "0.1.0"  # zipapp.sh writes the built version here, in its staging folder

from .errors import UsageError  # noqa: E402 (OURS comes first, where a reader looks for it)

DIGITS = frozenset("0123456789")
HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
IDENTIFIER = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-")
TEXT_MAX = 100              # characters of a version of a program: it is part of a file's name
HASH_DIGITS_MIN = 4         # git's own minimum for an abbreviated object name


class MalformedVersion(UsageError):
    """Not a version (or range); `position` counts from 0 in the text as given."""

    # A kind of its own: errors.from_wire finds a class by its kind.
    kind = "malformed_version"

    def __init__(self, message, hint="", position=0, **details):
        super().__init__(message, hint, position=position, **details)
        self.position = position


def override(text):
    """For tests: be of that version; nonsense is left for `check_override` to tell."""
    global OURS
    if text and _is_usable(text):
        OURS = text


def check_override(text):
    """Raise UsageError if that is no version to be."""
    if text and not _is_usable(text):
        raise UsageError(f"PTYGUARD_TEST_VERSION is {text[:40]!r}", hint="it takes a version, such as 1.2.3")


def _is_usable(text):
    try:
        return bool(parse(text)) and len(text) <= TEXT_MAX
    except MalformedVersion:
        return False


class Version:
    """One parsed version; `text` and `base` are without the leading `v`.

    `release` is three numerals and `prerelease` a tuple of identifiers, all
    text.  `commits`, the numeral N, is None without a describe suffix.
    """

    __slots__ = ("text", "base", "release", "prerelease", "commits", "commit", "is_dirty")

    def __init__(self, text, base, release, prerelease, suffix):
        self.text = text
        self.base = base
        self.release = release
        self.prerelease = prerelease
        self.commits, self.commit, self.is_dirty = suffix

    def __repr__(self):
        return f"<Version {self.text}>"

    def precedence(self):
        """Return a key that sorts as SemVer 2.0 (section 11) and rule 1 say."""
        release = tuple(_numeral_key(number) for number in self.release)
        identifiers = tuple(_identifier_key(word) for word in self.prerelease)
        since_tag = () if self.commits is None else (_numeral_key(self.commits), self.is_dirty)
        return release, (not identifiers, identifiers), since_tag


def parse(text):
    """Return the Version that `text` spells, or raise MalformedVersion."""
    plain, suffix = _split_describe(text)
    try:
        base, release, prerelease = _parse_semver(plain)
    except MalformedVersion:
        if suffix is NO_SUFFIX:
            raise
        # Rule 2; and if the whole is none either, its error has the position
        # that the caller can see.
        suffix = NO_SUFFIX
        base, release, prerelease = _parse_semver(text)
    return Version(_without_v(text), base, release, prerelease, suffix)


def is_newer(version, than):
    """Whether `version` is strictly later; what is no version is neither later nor earlier."""
    try:
        return compare(version, than) > 0
    except MalformedVersion:
        return False


def compare(a, b):
    """Return -1, 0 or 1: version text `a` is earlier than, level with or later than `b`."""
    key_a, key_b = parse(a).precedence(), parse(b).precedence()
    return (key_a > key_b) - (key_a < key_b)


def versions_match(a, b):
    """Are these one version, as far as the less precise of the two can say?

    With a describe suffix on one side only, the bases decide: a release and a
    build made from its tag belong together.  On both sides, or on neither,
    nothing but equality will do.  Metadata counts (rule 4), a leading `v` not.
    """
    version_a, version_b = parse(a), parse(b)
    if (version_a.commits is None) == (version_b.commits is None):
        return version_a.text == version_b.text
    return version_a.base == version_b.base


# --- ranges ---------------------------------------------------------------------

def _is_same(version, bound):
    # Level in the order is not enough for `==` when both name a commit.
    return version.precedence() == bound.precedence() and version.commit == bound.commit


def _is_compatible(version, bound, fixed):
    """At least `bound`, and no change in the first `fixed` numbers of the release.

    A fixed prefix rather than an upper bound: 2.0.0-rc.1 is earlier than 2.0.0
    and yet no 1.x, which an upper bound of 2.0.0 would let in.
    """
    return (version.precedence() >= bound.precedence()
            and version.release[:fixed] == bound.release[:fixed])


def _caret_fixed(bound, given):
    """`^` fixes the numbers up to the first that is not 0: in 0.2.3, 0.2."""
    for index, number in enumerate(bound.release[:given]):
        if number != "0":
            return index + 1
    return given


# Each takes the version, the bound, and how many numbers the bound spelled out.
# Two-character operators come first: ">=" begins with ">".
OPERATORS = {
    "==": lambda version, bound, given: _is_same(version, bound),
    "!=": lambda version, bound, given: not _is_same(version, bound),
    ">=": lambda version, bound, given: version.precedence() >= bound.precedence(),
    "<=": lambda version, bound, given: version.precedence() <= bound.precedence(),
    "~=": lambda version, bound, given: _is_compatible(version, bound, given - 1),
    ">": lambda version, bound, given: version.precedence() > bound.precedence(),
    "<": lambda version, bound, given: version.precedence() < bound.precedence(),
    "^": lambda version, bound, given: _is_compatible(version, bound, _caret_fixed(bound, given)),
}


def satisfies(version, range_text):
    """Does version text `version` lie in a range such as ">=1.2.3,<2"?

    A comma is "and"; blanks around a part are ignored.  A bound may leave out
    numbers, which are 0 then: `<2`.  `~=1.4` is 1.4 or later in 1; `~=1.4.5` is
    1.4.5 or later in 1.4; `^1.4.5` is 1.4.5 or later in 1; `^0.2.3` is 0.2.3 or
    later in 0.2.  All other operators are the order and nothing else, so that
    2.0.0-rc.1 is `<2`.  Raises MalformedVersion for either text, after the
    whole range has been read: a mistake shows whatever the answer would be.
    """
    candidate = parse(version)
    bounds = _parse_range(range_text)
    return all(OPERATORS[operator](candidate, bound, given) for operator, bound, given in bounds)


def _parse_range(text):
    """Return [(operator, bound, numbers given), ...] in the order of the text."""
    bounds = []
    start = 0
    for part in text.split(","):
        bounds.append(_parse_bound(text, start, start + len(part)))
        start += len(part) + 1
    return bounds


def _parse_bound(text, start, end):
    start, end = _trim(text, start, end)
    operator = next((name for name in OPERATORS if text.startswith(name, start, end)), None)
    if operator is None:
        raise _malformed("range", text, start, "one of " + " ".join(OPERATORS))
    start, end = _trim(text, start + len(operator), end)
    spelled = _without_v(text[start:end])
    given = spelled.count(".") + 1 if DIGITS.issuperset(spelled.replace(".", "")) else 3
    try:
        bound = parse(text[start:end] + ".0" * (3 - given))
    except MalformedVersion as error:
        raise _malformed("range", text, start + error.position,
                         error.details["expected"]) from None
    if operator == "~=" and given < 2:
        raise _malformed("range", text, end, "a second number, which ~= needs")
    return operator, bound, given


def _trim(text, start, end):
    while start < end and text[start] == " ":
        start += 1
    while end > start and text[end - 1] == " ":
        end -= 1
    return start, end


# --- reading one version ----------------------------------------------------------

NO_SUFFIX = (None, None, False)


def _split_describe(text):
    """Return (text without its describe suffix, (commits, commit, is_dirty)).

    The suffix ends the text (git appends it to any tag, one with metadata
    too), or stands right before the metadata, which somebody appended later.
    """
    plain, suffix = _cut_suffix(text)
    if suffix is NO_SUFFIX:
        head, plus, metadata = text.partition("+")
        plain, suffix = _cut_suffix(head)
        plain += plus + metadata
    return plain, suffix


def _cut_suffix(text):
    is_dirty = text.endswith("-dirty")
    front, mark, commit = (text[:-len("-dirty")] if is_dirty else text).rpartition("-g")
    plain, dash, commits = front.rpartition("-")
    if (mark and dash and _is_numeral(commits)
            and len(commit) >= HASH_DIGITS_MIN and HEX_DIGITS.issuperset(commit)):
        return plain, (commits, commit, is_dirty)
    return text, NO_SUFFIX


def _parse_semver(text):
    """Return (text without its `v`, release, pre-release) of plain SemVer."""
    release, at = _read_release(text, len(text) - len(_without_v(text)))
    prerelease = ()
    if text.startswith("-", at):
        prerelease, at = _read_identifiers(text, at + 1, _identifier_is_sound)
    if text.startswith("+", at):
        _, at = _read_identifiers(text, at + 1, bool)     # may be 001, must not be empty
    if at < len(text):
        raise _malformed("version", text, at, "'-', '+' or the end")
    return _without_v(text), release, prerelease


def _read_release(text, at):
    numbers = []
    for index in range(3):
        if index:
            if not text.startswith(".", at):
                raise _malformed("version", text, at, "'.' and a number")
            at += 1
        number = _span(text, at, DIGITS)
        if not _is_numeral(number):
            raise _malformed("version", text, at, "a number without leading zeros")
        numbers.append(number)
        at += len(number)
    return tuple(numbers), at


def _read_identifiers(text, at, is_sound):
    """Read words joined by dots; return (words, where they end)."""
    words = []
    while True:
        word = _span(text, at, IDENTIFIER)
        if not is_sound(word):
            raise _malformed("version", text, at, "letters, digits or hyphens"
                             + (", or a number without leading zeros" if word else ""))
        words.append(word)
        at += len(word)
        if not text.startswith(".", at):
            return tuple(words), at
        at += 1


def _span(text, at, allowed):
    end = at
    while end < len(text) and text[end] in allowed:
        end += 1
    return text[at:end]


def _is_numeral(word):
    return bool(word) and DIGITS.issuperset(word) and (word == "0" or word[0] != "0")


def _identifier_is_sound(word):
    return bool(word) and (_is_numeral(word) or not DIGITS.issuperset(word))


def _numeral_key(number):
    # Without leading zeros the longer numeral is the larger number.  int() is
    # quadratic here, and since 3.11 refuses more than 4300 digits.
    return len(number), number


def _identifier_key(word):
    # Numbers come before words (SemVer 2.0, 11.4.3); words go by ASCII.
    return (0, _numeral_key(word)) if _is_numeral(word) else (1, word)


def _without_v(text):
    return text[1:] if text.startswith("v") else text


def _malformed(what, text, position, expected):
    # repr, because the text may come from a peer and go to a terminal (C-906).
    return MalformedVersion(f"malformed {what} {text!r}: expected {expected} at position {position}",
                            position=position, expected=expected)
