"""Pages: a directory with NAME.json, NAME.md and charts for each measure, and README.md in front.

The JSON is the result; everything else is made from it, anew for all measures whenever one of them was run, so
that results of different days stand side by side, each with its own date and machine.
"""

import glob
import inspect
import json
import os
import platform
import time

from chart import Panel, svg
from contenders import PEERS
from tables import Table

# What the one chart in front shows: (measure, table), its title, and whom.
FRONT = [("throughput", "text", "A flood of text through an attached client"),
         ("throughput", "colour", "A flood with a colour for every word"),
         ("echo", "program", "A key's way to the program and back (median)"),
         ("echo", "streams-program", "The same beside sessions that stream at full speed (median)")]


def machine(found, missing):
    """Facts that a figure means nothing without."""
    return {"kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
            "processors": os.cpu_count(), "processor": _processor(),
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "load": round(os.getloadavg()[0], 1),
            "versions": {one.name: one.version for one in found if one.version}, "missing": missing}


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def result(module, tables, facts, seconds):
    """What is kept of one measure."""
    return {"measure": module.__name__, "about": inspect.cleandoc(module.__doc__),
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "machine": facts,
            "seconds": round(seconds), "tables": [table.to_json() for table in tables]}


def text_of(kept):
    """The Markdown of one measure, without charts."""
    return "\n".join(_lines(kept, charts=False))


def write(directory, results):
    """Keep these results, and make all pages and charts anew."""
    os.makedirs(directory, exist_ok=True)
    for kept in results:
        with open(os.path.join(directory, kept["measure"] + ".json"), "w", encoding="utf-8") as file:
            json.dump(kept, file, indent=1)
            file.write("\n")
    everything = list(read(directory))
    for kept in everything:
        for name in glob.glob(os.path.join(glob.escape(directory), kept["measure"] + "-*.svg")):
            os.unlink(name)             # also of a table that is there no more
        _write(directory, kept["measure"] + ".md", "\n".join(_lines(kept, charts=True)))
        for table in _tables(kept):
            panel = Panel.of_table(table)
            if panel:
                _write(directory, _chart_name(kept, table), svg([panel]))
    _write_front(directory, everything)


def read(directory):
    """All results that are kept there, by the measures' names."""
    for name in sorted(os.listdir(directory)):
        if name.endswith(".json"):
            with open(os.path.join(directory, name), encoding="utf-8") as file:
                yield json.load(file)


def _write(directory, name, text):
    with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
        file.write(text)


def _tables(kept):
    return [Table.from_json(table) for table in kept["tables"]]


def _chart_name(kept, table):
    return f"{kept['measure']}-{table.name}.svg"


def _lines(kept, charts):
    title, *about = kept["about"].split("\n")
    heading, _, rest = title.partition(": ")
    yield f"# {heading}"
    yield ""
    yield (rest[:1].upper() + rest[1:])
    yield from about
    yield ""
    yield _facts(kept)
    for table in _tables(kept):
        yield ""
        yield from table.markdown()
        if charts and Panel.of_table(table):
            yield ""
            yield f"![{table.title}]({_chart_name(kept, table)})"
    yield ""


def _facts(kept):
    facts = kept["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    missing = f" Not installed, not measured: {', '.join(facts['missing'])}." if facts["missing"] else ""
    return (f"Run of {kept['date']} ({kept['seconds']} s): {facts['kernel']}, {facts['processors']} processors "
            f"({facts['processor']}), {facts['python']}, load {facts['load']} before it; {versions}.{missing} "
            f"`python3 bench/run.py {kept['measure']}` repeats it.")


def _write_front(directory, everything):
    panels = list(filter(None, (_front_panel(everything, *row) for row in FRONT)))
    lines = ["# Measurements", "",
             "Made by `python3 bench/run.py`, which anyone can run: standard library only, Linux; "
             f"`sh bench/peers.sh` installs {', '.join(PEERS)} where Debian has them.",
             "The contenders take turns, round after round. A ratio is the median of the rounds' ratios, each "
             "between two runs of one round: compare ratios, not seconds.", ""]
    if panels:
        _write(directory, "front.svg", svg(panels))
        lines += ["![Throughput and echo beside the peers](front.svg)", ""]
    lines += ["| measure | of | what |", "|---|---|---|"]
    for kept in everything:
        name, _, what = kept["about"].split("\n")[0].partition(": ")
        lines.append(f"| [{name}]({kept['measure']}.md) | {kept['date']} | {what} |")
    _write(directory, "README.md", "\n".join(lines + [""]))


def _front_panel(everything, measure, name, title):
    for kept in everything:
        for table in _tables(kept):
            if (kept["measure"], table.name) == (measure, name):
                return Panel.of_table(table, title=title)
    return None
