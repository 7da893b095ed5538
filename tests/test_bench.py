"""The benchmark suite works: every measure, tiny, with whatever peers are installed.

Figures mean nothing here and none is looked at, but for those that count lost bytes.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

import pytest
from world import ROOT, default_signals, wait_until

sys.path.insert(0, os.path.join(ROOT, "bench"))
import processes        # noqa: E402
import rounds           # noqa: E402
import sequence         # noqa: E402
from tables import Figure, Table     # noqa: E402

MEASURES = ("throughput", "echo", "scale", "crash", "upgrade", "startup", "snapshots")
LIMIT_S = 600
SVG = "{http://www.w3.org/2000/svg}"

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="the suite reads /proc")


@pytest.fixture
def temporary():
    """A directory with a short name, in which the suite's runs live."""
    directory = tempfile.mkdtemp(prefix="pgb-", dir="/tmp")
    yield directory
    processes.end_all(directory)
    shutil.rmtree(directory)


def run_suite(temporary, *words):
    """The suite to its end; no process and no file of its runs may be left."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PTYGUARD")}
    done = subprocess.run([sys.executable, os.path.join(ROOT, "bench", "run.py"), *words],
                          env=dict(environment, TMPDIR=temporary), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT_S, universal_newlines=True)
    assert not processes.carrying(temporary)
    assert os.listdir(temporary) == []
    return done


@pytest.mark.parametrize("measure", MEASURES)
def test_a_measure_comes_out_whole(measure, temporary, tmp_path):
    done = run_suite(temporary, measure, "--quick", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / f"{measure}.json").read_text())
    page = (tmp_path / f"{measure}.md").read_text()
    assert result["machine"]["python"] in page and result["date"] in page
    assert f"({measure}.md)" in (tmp_path / "README.md").read_text()
    assert result["tables"]
    for kept in result["tables"]:
        check_table(Table.from_json(kept), page, done.stdout)
        check_chart(tmp_path / f"{measure}-{kept['name']}.svg", page, kept)


def check_table(table, page, printed):
    """All that was measured stands in the page and was printed, each row as wide as the heading."""
    lines = list(table.markdown())
    assert "\n".join(lines) in page and "\n".join(lines) in printed
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(table.runs) and table.runs
    assert len({row.count("|") for row in rows}) == 1
    for runs in table.runs.values():
        assert runs and all(run.get(table.figures[0].key) is not None for run in runs)
        for lost in ("lost", "doubled", "log_lost"):
            assert not any(run.get(lost) for run in runs)


def check_chart(path, page, kept):
    """A bar for each row, and the page shows it."""
    assert f"]({path.name})" in page
    picture = xml.etree.ElementTree.parse(str(path)).getroot()
    assert len(picture.findall(SVG + "rect")) == len(kept["runs"])
    shown = "".join(picture.itertext())
    assert all(name in shown for name in kept["runs"])


def test_results_of_other_measures_stay(temporary, tmp_path):
    other = {"measure": "other", "about": "Other: a measure of yesterday.", "date": "yesterday", "seconds": 1,
             "machine": {"kernel": "k", "processors": 1, "processor": "p", "python": "y", "load": 0.0,
                         "versions": {}, "missing": ["tmux"]},
             "tables": [Table("t", "T", [Figure("s", "s", "{:.1f}")], ["s"],
                              {"bare": [{"s": 1.0}], "dtach": [{"s": 2.0}]}, {"screen": "no | luck"}).to_json()]}
    (tmp_path / "other.json").write_text(json.dumps(other))
    done = run_suite(temporary, "snapshots", "--quick", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "other.json").read_text()) == other
    page = (tmp_path / "other.md").read_text()
    assert "| dtach | 2.0 | 2.00 | 1.00 |" in page and "| screen | no / luck |" in page
    assert "not measured: tmux" in page
    front = (tmp_path / "README.md").read_text()
    assert "(other.md)" in front and "(snapshots.md)" in front


def test_a_contender_that_fails_is_told_and_the_others_are_measured(temporary, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import sys; sys.exit('a broken one')\n")
    done = run_suite(temporary, "echo", "--quick", "--only", "bare", "--only", "broken",
                     "--ptyguard", f"broken={broken}", "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    kept = json.loads((tmp_path / "out" / "echo.json").read_text())["tables"][0]
    assert len(kept["runs"]["bare"]) == 1
    assert "a broken one" in kept["failures"]["broken"] and "broken" not in kept["runs"]
    assert re.search(r"^\| broken \| failed in round 1: .*a broken one", done.stdout, re.M)


def test_ctrl_c_ends_one_run_and_the_others_are_measured(temporary, tmp_path):
    suite = subprocess.Popen(
        [sys.executable, os.path.join(ROOT, "bench", "run.py"), "echo", "--quick", "--only", "bare",
         "--only", "ptyguard", "--out", str(tmp_path)], env=dict(os.environ, TMPDIR=temporary), bufsize=0,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=default_signals)
    with suite:
        first = suite.stderr.readline()
        assert b"bare" in first
        # Its directory is made within the run.
        wait_until(lambda: any(processes.carrying(os.path.join(temporary, "pg-bench-"))), "the next run")
        suite.send_signal(signal.SIGINT)
        said = suite.stderr.read()
    assert suite.returncode == 1, said
    assert os.listdir(temporary) == [] and not processes.carrying(temporary)
    tables = json.loads((tmp_path / "echo.json").read_text())["tables"]
    assert "interrupted" in tables[0]["failures"]["ptyguard"] and len(tables[0]["runs"]["bare"]) == 1
    assert len(tables[1]["runs"]["ptyguard"]) == 1


@pytest.mark.parametrize("there,status,said", [(("dtach", "abduco", "tmux", "screen"), 0, []),
                                               (("dtach", "screen"), 1, ["abduco", "tmux"])])
def test_peers_that_are_missing_are_named(tmp_path, there, status, said):
    for name in there:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(["/bin/sh", os.path.join(ROOT, "bench", "peers.sh")], env={"PATH": str(tmp_path)},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (status, b"")
    assert done.stderr.decode().splitlines() == [f"peers.sh: {name} is missing" for name in said]


def test_a_ratio_is_the_median_of_the_ratios_of_each_round():
    runs = {"a": [{"s": 1.0}, {"s": 20.0}, {"s": 3.0}], "b": [{"s": 2.0}, {"s": 10.0}, {"s": 3.0}],
            "c": [{"s": None}]}
    assert rounds.ratio(runs, "a", "b", "s") == 1.0
    assert rounds.ratio(runs, "a", "c", "s") is None and rounds.ratio(runs, "a", "d", "s") is None


def test_quantiles_are_values_that_were_measured():
    assert rounds.quantile([3, 1, 2], 0.5) == 2 and rounds.quantile([5], 0.99) == 5
    assert rounds.quantile(list(range(1, 101)), 0.99) == 99


def test_fairness_is_one_for_equal_shares_and_one_nth_where_one_has_all():
    assert rounds.fairness([7, 7, 7, 7]) == 1.0 and rounds.fairness([9, 0, 0]) == pytest.approx(1 / 3)
    assert rounds.fairness([0, 0]) is None


def numbered(count):
    scope = {}
    exec(sequence.LINES, scope)
    return b"".join(map(scope["line"], range(count))), b"<<end %012d>>" % count


@pytest.mark.parametrize("piece", [1, 7, 256, 1000, 1 << 20])
@pytest.mark.parametrize("at,lost,doubled", [(0, 0, 0), (1000, 300, 0), (512, 256, 0), (9000, 1, 0),
                                             (5000, 0, 300), (5120, 0, 256)])
def test_bytes_that_are_lost_or_come_twice_are_counted(piece, at, lost, doubled):
    lines, end = numbered(300)
    data = lines[:at] + lines[at - doubled + lost:] + end
    checker = sequence.Checker()
    for start in range(0, len(data), piece):
        checker.feed(data[start:start + piece])
    assert (checker.lost, checker.doubled, checker.is_over) == (lost, doubled, True)


def test_bytes_that_are_lost_at_the_very_end_are_counted():
    lines, end = numbered(10)
    checker = sequence.Checker()
    checker.feed(lines[:-256] + end)
    assert (checker.lost, checker.is_over) == (256, True)
