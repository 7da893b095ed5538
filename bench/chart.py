"""Charts: bars as SVG, readable on a light page and on a dark one, no fonts and no scripts in it.

A bar for each contender, its length the figure's median, a thin line from the least to the most
of the rounds.  The scale begins at nought.  Bars that would be longer than CUT times the median of
all are cut, and say so: one slow contender must not make all the others look the same.
"""

import statistics
from xml.sax.saxutils import escape

from contenders import PEERS

WIDTH, LABEL_WIDTH, VALUE_WIDTH = 720, 190, 90
BAR, STEP, TOP, PANEL_GAP = 16, 24, 34, 18
CUT = 6.0
OTHERS = PEERS + ("python3", "script", "cat", "this")

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.value { font-size: 12px }
.bar { fill: #8c959f } .ours { fill: #1f7a5c } .bare { fill: #b9c0c8 }
.spread { stroke: #24292f; stroke-width: 1 } .axis { stroke: #8c959f; stroke-width: 1 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .spread { stroke: #e6edf3 }
.bar { fill: #6e7681 } .ours { fill: #3fb68b } .bare { fill: #484f58 }
}
"""


class Panel:
    """One title with its bars: `bars` are (label, value, least, most, text)."""

    def __init__(self, title, bars):
        self.title, self.bars = title, bars

    @classmethod
    def of_table(cls, table, names=None, title=None):
        """The first figure of a table, for those `names` or for all; None where there is nothing."""
        figure = table.figures[0]
        bars = []
        for name in table.runs:
            values = table.values(name, figure.key)
            if values and (names is None or name in names):
                value = table.value(name, figure)
                text = figure.form.format(value)
                bars.append((name, value, min(values), max(values),
                             text if text.endswith("%") else f"{text} {figure.heading.split()[-1]}"))
        return cls(title or table.title, bars) if bars else None

    @property
    def height(self):
        return TOP + STEP * len(self.bars)

    def draw(self, top):
        """Its elements, from that height on."""
        yield f'<text class="title" x="0" y="{top + 18}">{escape(self.title)}</text>'
        longest = self._longest()
        room = WIDTH - LABEL_WIDTH - VALUE_WIDTH
        scale = room / longest if longest else 0.0
        for number, (label, value, least, most, text) in enumerate(self.bars):
            y = top + TOP + STEP * number
            is_cut = value > longest
            length = min(value, longest) * scale
            yield f'<text x="{LABEL_WIDTH - 8}" y="{y + 13}" text-anchor="end">{escape(label)}</text>'
            yield (f'<rect class="{_kind(label)}" x="{LABEL_WIDTH}" y="{y}" width="{length:.1f}" height="{BAR}">'
                   f'<title>{escape(label)}: {escape(text)}</title></rect>')
            if not is_cut and most > least:
                ends = [LABEL_WIDTH + min(end, longest) * scale for end in (least, most)]
                yield f'<path class="spread" d="M{ends[0]:.1f} {y + BAR // 2}H{ends[1]:.1f}"/>'
                length = max(length, ends[1] - LABEL_WIDTH)
            yield (f'<text class="value" x="{LABEL_WIDTH + length + 6:.1f}" y="{y + 13}">'
                   f'{escape(text)}{" (cut)" if is_cut else ""}</text>')
        yield (f'<path class="axis" d="M{LABEL_WIDTH} {top + TOP - 4}V{top + TOP + STEP * len(self.bars) - 4}"/>')

    def _longest(self):
        most = max(bar[3] for bar in self.bars)
        return min(most, CUT * statistics.median(bar[1] for bar in self.bars)) or most


def _kind(label):
    """The classes of a bar: whoever is not known to be another's is ours, whatever its label."""
    first = label.split()[0]
    return "bar bare" if first == "bare" else "bar" if first in OTHERS else "bar ours"


def svg(panels):
    """The whole picture."""
    body, top = [], 0
    for panel in panels:
        body += panel.draw(top)
        top += panel.height + PANEL_GAP
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 -4 {WIDTH + 16} {top}" width="{WIDTH}" role="img">',
        f"<title>{escape('; '.join(panel.title for panel in panels))}</title>",
        f"<style>{STYLE}</style>", *body, "</svg>", ""])
