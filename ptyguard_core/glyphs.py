"""Glyphs: characters that are drawn as geometry, because a font would leave gaps between cells.

Box drawing, blocks, braille and the four old Powerline arrows: what has to meet its
neighbour at the cell's edge, whatever font the viewer has.  Pure: a character and a
rectangle in, SVG path data out.

What a box-drawing character looks like is read from its name ("BOX DRAWINGS DOWN LIGHT
AND RIGHT HEAVY"): all 128 names are made of the same few words.
"""

import unicodedata

# The layers that a character is made of: upright edges (to be drawn crisp), slopes, thin lines, shades.
LAYERS = ("fill", "slope", "stroke", "shade1", "shade2", "shade3")

_LIGHT, _HEAVY, _DOUBLE = 1, 2, 3
_WEIGHTS = {"LIGHT": _LIGHT, "SINGLE": _LIGHT, "HEAVY": _HEAVY, "DOUBLE": _DOUBLE}
_ARMS = {"LEFT": ("left",), "RIGHT": ("right",), "UP": ("up",), "DOWN": ("down",),
         "HORIZONTAL": ("left", "right"), "VERTICAL": ("up", "down")}
_DASHES = {"DOUBLE DASH": 2, "TRIPLE DASH": 3, "QUADRUPLE DASH": 4}

# Thickness of an arm by weight; the two lines of a double one lie DOUBLE_OFFSET off the middle.
_THICKNESS = {0: 0, _LIGHT: 1, _HEAVY: 2, _DOUBLE: 1}
_DOUBLE_OFFSET = 1.5

# Eighths of the cell: left, top, right, bottom.
_BLOCKS = {0x2580: [(0, 0, 8, 4)], 0x2590: [(4, 0, 8, 8)], 0x2594: [(0, 0, 8, 1)], 0x2595: [(7, 0, 8, 8)]}
_BLOCKS.update({0x2580 + n: [(0, 8 - n, 8, 8)] for n in range(1, 9)})
_BLOCKS.update({0x2590 - n: [(0, 0, n, 8)] for n in range(1, 8)})
_QUADRANTS = ((0, 0, 4, 4), (4, 0, 8, 4), (0, 4, 4, 8), (4, 4, 8, 8))
# From U+2596 on: which quadrants, in the order of _QUADRANTS.
_BLOCKS.update({0x2596 + i: [_QUADRANTS[n] for n in quadrants] for i, quadrants in enumerate(
    [(2,), (3,), (0,), (0, 2, 3), (0, 3), (0, 1, 2), (0, 1, 3), (1,), (1, 2), (1, 2, 3)])})

_SHADES = {0x2591: "shade1", 0x2592: "shade2", 0x2593: "shade3"}

# Points in eighths, and the layer.
_POWERLINE = {0xE0B0: ("slope", [(0, 0), (8, 4), (0, 8)]), 0xE0B1: ("stroke", [(0, 0), (8, 4), (0, 8)]),
              0xE0B2: ("slope", [(8, 0), (0, 4), (8, 8)]), 0xE0B3: ("stroke", [(8, 0), (0, 4), (8, 8)])}

# Bit of U+2800 + n -> column, row of the dot.
_BRAILLE = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))


def number(value):
    """A coordinate as short as it can be written."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def paths(chars, x, y, width, height):
    """{layer: path data} of cells side by side, the first one with its corner at x, y."""
    found = {}
    at = 0
    while at < len(chars):
        count = 1
        while at + count < len(chars) and chars[at + count] == chars[at]:
            count += 1
        for layer, data in _same(chars[at], count, x + at * width, y, width, height):
            found[layer] = found.get(layer, "") + data
        at += count
    return {layer: found[layer] for layer in LAYERS if layer in found}


def _same(char, count, x, y, width, height):
    """(layer, data) of `count` equal cells; one shape for all where it has no gap at the sides."""
    code = ord(char)
    if code in _SHADES:
        yield _SHADES[code], _rectangle(x, y, x + count * width, y + height)
    elif code in _BLOCKS and all(left == 0 and right == 8 for left, _, right, _ in _BLOCKS[code]):
        yield from _blocks(code, x, y, count * width, height)
    elif char in "─━═":
        yield from _lines(_arms(unicodedata.name(char)), x, y, count * width, height)
    else:
        for n in range(count):
            yield from _one(char, x + n * width, y, width, height)


def _one(char, x, y, width, height):
    code = ord(char)
    if code in _BLOCKS:
        yield from _blocks(code, x, y, width, height)
    elif code in _POWERLINE:
        layer, points = _POWERLINE[code]
        yield layer, _polygon([(x + a * width / 8, y + b * height / 8) for a, b in points],
                              is_closed=layer == "slope")
    elif code >= 0x2800:
        yield from _braille(code - 0x2800, x, y, width, height)
    else:
        yield from _box(unicodedata.name(char), x, y, width, height)


def _blocks(code, x, y, width, height):
    for left, top, right, bottom in _BLOCKS[code]:
        yield "fill", _rectangle(x + left * width / 8, y + top * height / 8,
                                 x + right * width / 8, y + bottom * height / 8)


def _braille(bits, x, y, width, height):
    half = min(width / 4, height / 8) * 0.5
    for n, (column, row) in enumerate(_BRAILLE):
        if bits >> n & 1:
            at_x, at_y = x + (column + 0.5) * width / 2, y + (row + 0.5) * height / 4
            yield "fill", _rectangle(at_x - half, at_y - half, at_x + half, at_y + half)


def _rectangle(left, top, right, bottom):
    return f"M{number(left)} {number(top)}H{number(right)}V{number(bottom)}H{number(left)}Z"


def _polygon(points, is_closed):
    corners = "L".join(f"{number(x)} {number(y)}" for x, y in points)
    return f"M{corners}Z" if is_closed else f"M{corners}"


# --- box drawing -----------------------------------------------------------------------

def _box(name, x, y, width, height):
    if "DIAGONAL" in name:
        return _diagonals(name, x, y, width, height)
    if "ARC" in name:
        return _arc(_arms(name), x, y, width, height)
    for words, count in _DASHES.items():
        if words in name:
            return _dashes(_arms(name.replace(words, "")), count, x, y, width, height)
    return _lines(_arms(name), x, y, width, height)


def _arms(name):
    """{arm: weight}, 0 where there is none.

    "DOWN LIGHT AND RIGHT HEAVY", "LEFT HEAVY AND RIGHT DOWN LIGHT", "DOUBLE DOWN AND RIGHT":
    groups of arms, each with a weight or with that of the group before it.
    """
    arms = dict.fromkeys(("left", "up", "right", "down"), 0)
    weight = _LIGHT
    for group in name.replace("BOX DRAWINGS ", "").split(" AND "):
        words = group.split()
        weight = next((_WEIGHTS[word] for word in words if word in _WEIGHTS), weight)
        for word in words:
            for arm in _ARMS.get(word, ()):
                arms[arm] = weight
    return arms


def _diagonals(name, x, y, width, height):
    if "UPPER RIGHT" in name or "CROSS" in name:
        yield "stroke", _polygon([(x + width, y), (x, y + height)], is_closed=False)
    if "UPPER LEFT" in name or "CROSS" in name:
        yield "stroke", _polygon([(x, y), (x + width, y + height)], is_closed=False)


def _arc(arms, x, y, width, height):
    middle_x, middle_y, radius = x + width / 2, y + height / 2, min(width, height) / 2
    side = 1 if arms["right"] else -1
    end = 1 if arms["down"] else -1
    yield "stroke", (f"M{number(middle_x)} {number(middle_y + end * height / 2)}"
                     f"V{number(middle_y + end * radius)}"
                     f"Q{number(middle_x)} {number(middle_y)} {number(middle_x + side * radius)} {number(middle_y)}"
                     f"H{number(middle_x + side * width / 2)}")


def _dashes(arms, count, x, y, width, height):
    half = _THICKNESS[max(arms.values())] / 2
    for n in range(count):
        begin, end = (n + 0.2) / count, (n + 0.8) / count
        if arms["left"]:
            yield "fill", _rectangle(x + begin * width, y + height / 2 - half,
                                     x + end * width, y + height / 2 + half)
        else:
            yield "fill", _rectangle(x + width / 2 - half, y + begin * height,
                                     x + width / 2 + half, y + end * height)


# arm: (the arm across from it, those at its sides, seen as lower and higher coordinate,
#       whether it lies along x, which way it points)
_PLACES = {"left": ("right", ("up", "down"), True, -1), "right": ("left", ("up", "down"), True, 1),
           "up": ("down", ("left", "right"), False, -1), "down": ("up", ("left", "right"), False, 1)}


def _lines(arms, x, y, width, height):
    """The arms as rectangles that meet in the middle of the cell."""
    for arm, (across, sides, is_along_x, sign) in _PLACES.items():
        if not arms[arm]:
            continue
        half = _THICKNESS[arms[arm]] / 2
        middle, length = (x + width / 2, width) if is_along_x else (y + height / 2, height)
        other = y + height / 2 if is_along_x else x + width / 2
        for offset in (-_DOUBLE_OFFSET, _DOUBLE_OFFSET) if arms[arm] == _DOUBLE else (0,):
            start = middle + sign * _start(arms, arms[across], sides, offset)
            near, far = sorted((start, middle + sign * length / 2))
            box = (near, other + offset - half, far, other + offset + half)
            yield "fill", _rectangle(*(box if is_along_x else (box[1], box[0], box[3], box[2])))


def _start(arms, across, sides, offset):
    """How far from the middle, in its own direction, an arm's line begins."""
    lower, higher = arms[sides[0]], arms[sides[1]]
    if offset:                                  # a line of a double arm
        beside, beyond = (lower, higher) if offset < 0 else (higher, lower)
        if beside == _DOUBLE:
            return _DOUBLE_OFFSET - 0.5         # the inner corner
        return -_DOUBLE_OFFSET - 0.5 if beyond == _DOUBLE and not across else -0.5
    if _DOUBLE in (lower, higher) and not across:
        return (_DOUBLE_OFFSET if lower == higher else -_DOUBLE_OFFSET) - 0.5
    return -max(_THICKNESS[lower], _THICKNESS[higher]) / 2
