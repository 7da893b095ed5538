"""Unit: what `daemon unit` prints, read as systemd reads it; and run."""

import os
import re
import subprocess
import sys

import pytest
from hypothesis import example, given, strategies as st

from ptyguard_core import unit
from ptyguard_core.errors import UsageError
from world import MEMORY, ROOT, World

_ESCAPES = re.compile(rb'\\(x[0-9a-f]{2}|["\\])')


def words_of(line):
    """The words of a command line by systemd.syntax(7) and systemd.service(5), as bytes."""
    found = []
    for number, word in enumerate(re.findall(rb'"(?:[^"\\]|\\.)*"|[^ ]+', os.fsencode(line))):
        if word.startswith(b'"'):
            word = _ESCAPES.sub(lambda match: bytes([int(match[1][1:], 16)]) if match[1][:1] == b"x"
                                else match[1], word[1:-1])
        else:
            assert not re.search(rb"[\\\"' \t]", word)
        assert b"%" not in word.replace(b"%%", b"")
        word = word.replace(b"%%", b"%")
        if number:                      # in the first one nothing is substituted
            assert b"$" not in word.replace(b"$$", b"")
            word = word.replace(b"$$", b"$")
        found.append(word)
    return found


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1)
                | st.binary(min_size=1).filter(lambda data: b"\0" not in data).map(os.fsdecode), min_size=1))
@example(['/h/ann b/"100%" \\$HOME/$$/\'x\'\n', "%h", "${X}", "", "é\t"])
def test_whatever_words_there_are_systemd_reads_the_same(words):
    words[0] = "/" + words[0]
    line = unit.command_line(words)
    assert line.isprintable()
    read = words_of(line)
    if read[0] == b"/usr/bin/env" and len(read) > len(words):
        read = read[1:]
    assert read == list(map(os.fsencode, words))


def test_a_program_whose_path_systemd_refuses_is_run_by_env():
    assert unit.command_line(["/a'b/python3", "x"]) == '/usr/bin/env "/a\'b/python3" x'
    assert unit.command_line(["/a$b/python3"]) == "/usr/bin/env /a$$b/python3"
    assert unit.command_line(["/a b/python3"]) == '"/a b/python3"'


def test_a_guard_with_a_unit_of_its_own_stays_unless_it_is_told_otherwise():
    assert "\nEnvironment=PTYGUARD_IDLE_EXIT=0\n" in unit.service(["/p"], {})
    text = unit.service(["/p"], {"PTYGUARD_IDLE_EXIT": "60", "PTYGUARD_DIR": "/a b%"})
    assert "\nEnvironment=PTYGUARD_IDLE_EXIT=60\n" in text
    assert '\nEnvironment="PTYGUARD_DIR=/a b%%"\n' in text


@pytest.mark.parametrize("path", ["/a\nb", "/a\udcffb", "/\x1b"])
def test_a_directory_that_no_unit_can_name_is_refused(path):
    with pytest.raises(UsageError) as caught:
        unit.service(["/p"], {"PTYGUARD_DIR": path})
    assert caught.value.message.startswith("PTYGUARD_DIR cannot stand in a unit: ")


def settings(text):
    """{key: [values]} of all sections."""
    found = {}
    for key, value in re.findall(r"(?m)^(\w+)=(.*)$", text):
        found.setdefault(key, []).append(value)
    return found


def test_the_unit_starts_and_stops_what_it_says():
    with World(under=MEMORY) as world:
        directory = os.path.join(world.directory, 'a "d" $1 100%')
        text = world.run("--dir", directory, "daemon", "unit", check=0).stdout.decode()
        assert not os.path.exists(directory)
        found = settings(text)
        assert found["KillMode"] == ["process"] and found["RemainAfterExit"] == ["yes"]
        assert found["WantedBy"] == ["default.target"]
        env = {"PATH": os.environ["PATH"]}
        env.update(os.fsdecode(words_of(value)[0]).split("=", 1) for value in found["Environment"])
        assert env["PTYGUARD_DIR"] == directory
        world.env["PTYGUARD_DIR"] = directory
        start, stop = (words_of(found[key][0]) for key in ("ExecStart", "ExecStop"))
        subprocess.run(start, env=env, cwd="/", check=True, stdout=subprocess.DEVNULL, timeout=60)
        world.run("start", "-n", "s", "--", "sleep", "1000", check=0)
        guard = world.guard_pid()
        subprocess.run(stop, env=env, cwd="/", check=True, stderr=subprocess.DEVNULL, timeout=60)
        told = world.json("status")
        assert told["state"] == "stopped" and told["guard"]["pid"] == guard
        world.run("has", "s", check=0)


def test_the_unit_names_the_archive_that_printed_it(tmp_path):
    subprocess.run(["sh", os.path.join(ROOT, "zipapp.sh"), str(tmp_path / "p.pyz")], check=True, cwd=ROOT,
                   env=dict(os.environ, PYTHON=sys.executable, PYTHONS=""), stdout=subprocess.DEVNULL)
    with World([sys.executable, str(tmp_path / "p.pyz")], under=MEMORY) as world:
        start, = settings(world.run("daemon", "unit", check=0).stdout.decode())["ExecStart"]
        assert words_of(start)[1:] == [os.fsencode(tmp_path / "p.pyz"), b"daemon", b"start"]
        assert os.path.isabs(words_of(start)[0])


def test_a_setting_that_no_guard_takes_is_refused():
    with World(under=MEMORY) as world:
        done = world.run("daemon", "unit", env=dict(world.env, PTYGUARD_MAX_SESSIONS="many"), check=2)
        assert b"PTYGUARD_MAX_SESSIONS" in done.stderr and done.stdout == b""


def test_systemd_finds_no_fault_with_it(tmp_path):
    names = [os.path.join(place, "systemd-analyze") for place in ("/usr/bin", "/bin")]
    analyze = next(filter(os.path.exists, names), None)
    if analyze is None:
        pytest.skip("there is no systemd-analyze here")
    path = tmp_path / "ptyguard.service"
    strange = tmp_path / 'a "b" %h $HOME é'
    path.write_text(unit.service(["/bin/sh", str(strange)], {"PTYGUARD_DIR": str(strange)}), "utf-8")
    done = subprocess.run([analyze, "--user", "verify", str(path)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
                          env=dict(os.environ, XDG_RUNTIME_DIR=str(tmp_path), LC_ALL="C.UTF-8"))
    if b"initialize manager" in done.stdout:
        pytest.skip("systemd-analyze cannot run here")
    assert done.returncode == 0 and done.stdout == b"", done.stdout
