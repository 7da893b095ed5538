"""The manual page is what the tables say, whole, and well formed."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys

import pytest

from ptyguard_core import detachkey, keys, supervise, usage
from world import LIMIT_S, ROOT

PAGE = os.path.join(ROOT, "docs", "ptyguard.1")
GENERATOR = os.path.join(ROOT, "docs", "manual.py")
VISIBLE = [verb for verb in usage.VERBS.values() if not getattr(verb, "hidden", False)]


@pytest.fixture(scope="module")
def manual():
    spec = importlib.util.spec_from_file_location("manual", GENERATOR)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def needs(name):
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    return program


def rendered(program, *options):
    """The page as a reader sees it, without any white space."""
    done = subprocess.run([program, *options, PAGE], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    text = re.sub("\x1b\\[[0-9;]*m", "", re.sub(".\b", "", done.stdout.decode()))
    return squeezed(text)


def squeezed(text):
    return "".join(text.split())


def options_of(verb):
    return [option for option in verb.options if not getattr(option, "hidden", False)]


def table_texts():
    """Everything that the tables say to a user."""
    for verb in VISIBLE:
        yield "ptyguard " + verb.usage
        yield verb.summary
        yield from (line for line in verb.about.replace("`", "").split("\n") if line.startswith("  "))
        yield " ".join(line for line in verb.about.replace("`", "").split("\n")
                       if not line.startswith("  "))
        yield ", ".join(verb.aliases)
        yield from verb.examples
        yield from (code + meaning for code, meaning in verb.exits)
    for option in usage.GLOBALS + tuple(option for verb in VISIBLE for option in options_of(verb)):
        yield ", ".join(option.spellings) + " " + option.value
        yield option.help.replace("`", "")
    yield from (code + meaning for code, meaning in usage.EXIT_CODES)
    yield from detachkey.PRESETS
    yield from keys.list_lines()


def test_the_page_in_the_tree_is_what_the_generator_makes():
    env = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, GENERATOR], stdout=subprocess.PIPE, env=env, cwd="/",
                          timeout=LIMIT_S, check=True)
    with open(PAGE, "rb") as file:
        assert file.read() == done.stdout, "python3 docs/manual.py > docs/ptyguard.1"


def test_every_verb_and_every_visible_option_is_in_the_page(manual):
    with open(PAGE, encoding="ascii") as file:
        verbs = file.read().split("\n.Sh GLOBAL OPTIONS\n")[0]
    parts = dict(part.split(" \\(en ", 1) for part in verbs.split('\n.Ss "\\&')[1:])
    for verb in VISIBLE:
        part = parts[manual.literal(verb.name)]
        for option in options_of(verb):
            assert f"\n.It {manual.option_head(option)}\n" in part
        assert part.count("\n.It Fl") == len(options_of(verb)), "a hidden one is shown"


def test_mandoc_has_nothing_to_complain_of():
    done = subprocess.run([needs("mandoc"), "-T", "lint", "-W", "warning", PAGE],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S)
    assert done.stdout == b""


@pytest.mark.parametrize("program, options", [
    ("mandoc", ["-T", "ascii"]), ("groff", ["-mdoc", "-Tascii", "-P-c", "-rLL=2000n"])])
def test_a_reader_sees_every_text_of_the_tables_as_it_is(program, options):
    text = rendered(needs(program), *options)
    for wanted in table_texts():
        assert squeezed(wanted) in text


def test_every_variable_is_in_the_page(manual):
    told = {name for name, _ in manual.ENVIRONMENT}
    assert set(supervise.SETTINGS) <= told
    with open(os.path.join(ROOT, "docs", "STATE.md"), encoding="utf-8") as file:
        assert set(re.findall(r"^\| `(PTYGUARD_\w+)`", file.read(), re.MULTILINE)) <= told


def test_exit_codes_are_those_of_the_verbs_and_of_the_readme():
    codes = {code for code, _ in usage.EXIT_CODES}
    assert {code for verb in usage.VERBS.values() for code, _ in verb.exits} <= codes
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        table = file.read().split("## Exit codes")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([0-9, ]+) \|", table, re.MULTILINE)
    assert {code for row in rows for code in row.split(", ")} == codes - {"0-255"}


def test_what_could_be_a_request_or_an_escape_is_neither(manual):
    assert manual.literal(".x") == "\\&.x" and manual.literal("'x") == "\\(aqx"
    assert manual.literal("a\\b --c") == "a\\eb \\-\\-c"
    assert manual.prose("a well-known --option of C-\\ and `x -y`") == \
        "a well-known \\-\\-option of C-\\e and \\fBx \\-y\\fP"
    assert manual.word("Ar") == "\\&Ar"
