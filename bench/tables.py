"""Tables: the figures of all rounds as data, and as Markdown.

A `Table` is kept as JSON with every round's figures, so that pages and charts can be made anew from it. Its
first figure is the one that the chart shows and the spread is told of. A figure is one number a run, or a list
of them, which are pooled over the rounds; or None where it does not apply.
"""

import collections
import statistics

from contenders import PEERS
from rounds import quantile, ratio

# `over`: how the rounds' values become one.
Figure = collections.namedtuple("Figure", "key heading form over")
Figure.__new__.__defaults__ = ("median",)

OVER = {"median": statistics.median, "max": max, "min": min, "sum": sum,
        "p50": lambda values: quantile(values, 0.50), "p95": lambda values: quantile(values, 0.95),
        "p99": lambda values: quantile(values, 0.99)}
TOLD = {"median": "medians of the rounds", "max": "the most of any round", "min": "the least of any round",
        "sum": "of all rounds together"}        # percentiles have it in their headings
NOTHING = "-"


class Table:
    """One table of a measure."""

    def __init__(self, name, title, figures, ratios, runs, failures, bases=None):
        """`ratios`: keys of the figures that are compared; `bases`: with whom, else bare and the peers."""
        self.name, self.title = name, title
        self.figures = [Figure(*figure) for figure in figures]
        self.ratios, self.runs, self.failures = list(ratios), runs, failures
        self.bases = [base for base in (bases if bases is not None else ("bare",) + PEERS) if base in runs]

    @classmethod
    def from_json(cls, kept):
        return cls(**kept)

    def to_json(self):
        return {"name": self.name, "title": self.title, "figures": [list(figure) for figure in self.figures],
                "ratios": self.ratios, "runs": self.runs, "failures": self.failures, "bases": self.bases}

    @property
    def rounds(self):
        return max(map(len, self.runs.values()), default=0)

    def values(self, name, key):
        """The rounds' values of a figure, where there are any."""
        found = [run[key] for run in self.runs[name] if run.get(key) is not None]
        return [value for one in found for value in (one if isinstance(one, list) else [one])]

    def value(self, name, figure):
        """One number for all rounds, or None."""
        values = self.values(name, figure.key)
        return OVER[figure.over](values) if values else None

    # -- as Markdown ------------------------------------------------------------------------

    def markdown(self):
        """Its lines: a heading, what was run, the table."""
        yield f"### {self.title}"
        yield ""
        yield f"{self.rounds} round{'s' if self.rounds != 1 else ''}; {self._how()}."
        yield ""
        yield _row(self._headings())
        yield _row(["---"] + ["---:"] * (len(self._headings()) - 1))
        for name in self.runs:
            yield _row(self._cells(name))
        for name, why in self.failures.items():
            yield _row([name, _one_line(why)] + [""] * (len(self._headings()) - 2))

    def _how(self):
        words = []
        for over, told in TOLD.items():
            headings = [figure.heading for figure in self.figures if figure.over == over]
            if headings:
                words.append(told if over == "median" else f"{told}: {', '.join(headings)}")
        return "; ".join(words) or "percentiles of all rounds together"

    def _headings(self):
        first, *others = [figure.heading for figure in self.figures]
        spread = [f"min-max {first}"] if self.rounds > 1 else []
        return ["", first] + spread + others + [self._ratio_heading(key, base) for key, base in self._ratios()]

    def _ratios(self):
        return [(key, base) for key in self.ratios for base in self.bases]

    def _ratio_heading(self, key, base):
        if len(self.ratios) == 1:
            return f"x {base}"
        return "{} x {}".format(next(figure.heading for figure in self.figures if figure.key == key), base)

    def _cells(self, name):
        first, *others = [_shown(figure, self.value(name, figure)) for figure in self.figures]
        ratios = [ratio(self.runs, name, base, key) for key, base in self._ratios()]
        return ([name, first] + ([self._spread(name)] if self.rounds > 1 else []) + others
                + [NOTHING if found is None else f"{found:.2f}" for found in ratios])

    def _spread(self, name):
        figure = self.figures[0]
        values = self.values(name, figure.key)
        return f"{_shown(figure, min(values))} - {_shown(figure, max(values))}" if values else NOTHING


def _shown(figure, value):
    return NOTHING if value is None else figure.form.format(value)


def _row(cells):
    return "| " + " | ".join(cells) + " |"


def _one_line(text):
    return " ".join(text.split()).replace("|", "/")[:300]
