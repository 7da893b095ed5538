"""docs/REQUIREMENTS.md: whatever it names is there."""

import ast
import functools
import os
import re

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

with open(os.path.join(ROOT, "docs", "REQUIREMENTS.md"), encoding="utf-8") as file:
    PAGE = file.read()

ROWS = [[cell.strip() for cell in line.strip("|\n ").split("|")]
        for line in PAGE.splitlines() if line.startswith("| C-")]
NAMED = sorted(set(re.findall(r"\b(test_\w+)::(test_\w+)", PAGE)))


@functools.lru_cache(maxsize=None)
def names_in(path):
    with open(path, "rb") as file:
        return {node.name for node in ast.walk(ast.parse(file.read()))
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("file, name", NAMED, ids=map("::".join, NAMED))
def test_a_test_that_is_named_exists(file, name):
    found = names_in(os.path.join(ROOT, "tests", file + ".py"))
    # The regression index names its tests by their numbers.
    assert name in found or any(each.startswith(name + "_") for each in found
                                if re.fullmatch(r"test_regression_\d+", name))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_rooms_that_exist_and_at_least_one_test(row):
    assert len(row) == 4 and "::" in row[3]
    for room in row[2].split(", "):
        assert any(os.path.exists(os.path.join(ROOT, where, room + ".py"))
                   for where in ("", "ptyguard_core")), room


@pytest.mark.parametrize("group, last", [(1, 25), (2, 17), (3, 14), (4, 10), (5, 5), (6, 5), (7, 7), (9, 6)])
def test_no_row_of_a_group_is_missing(group, last):
    found = {row[0] for row in ROWS}
    assert {f"C-{group}{number:02}" for number in range(1, last + 1)} <= found


def test_every_regression_that_is_not_for_later_has_a_test():
    elsewhere = {8, 9, 10}                  # in test_liveness_link, by name
    found = {int(name.split("_")[2]) for file in ("test_regressions", "test_tombstones", "test_reconcile",
                                                       "test_upgrade", "test_relaunch")
             for name in names_in(os.path.join(ROOT, "tests", file + ".py"))
             if name.startswith("test_regression_")}
    assert set(range(1, 35)) - elsewhere <= found
