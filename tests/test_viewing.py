"""Viewing: a session's screen in a client, over gaps, deaths and daemons of before."""

from ptyguard_core.render import render_text
from ptyguard_core.viewing import Viewing, replayed, take
from world import LIMIT_S, wait_until


def start(pg, name, line, **options):
    session = pg.start(["sh", "-c", line], name, **options)
    session.wait_for(b"ready", LIMIT_S)
    return session


def view(channel, session):
    viewing = Viewing(channel, "@" + session.id)
    while viewing.screen is None:
        look(viewing)
    return viewing


def look(viewing):
    assert viewing.channel.wait_answer(LIMIT_S)
    for _ in viewing.burst():
        pass


def text_of(screen):
    return render_text(screen)


def test_the_screen_is_kept_up_to_date_to_the_end(pg, name):
    session = start(pg, name, "echo ready; read x; printf '\\033[2Jall is new'; exit 3")
    with pg.open_channel("view") as channel:
        viewing = view(channel, session)
        assert text_of(viewing.screen) == "ready\n"
        session.send(b"\n")
        while viewing.end is None:
            look(viewing)
        assert viewing.end["exit"] == {"code": 3, "signal": None}
        assert text_of(viewing.screen) == text_of(session.screen())
        assert "all is new" in text_of(viewing.screen)


def test_after_a_gap_it_is_a_fresh_screen(pg, name):
    session = start(pg, name, r"stty -echo; printf '\033[?1049hready'; read x; seq 300000; printf 'the end'; read x",
                    scrollback=65536)
    with pg.open_channel("view") as channel:
        viewing = view(channel, session)
        session.send(b"\n")
        session.wait_for(b"the end", LIMIT_S)       # megabytes that were not read here
        wanted = text_of(session.screen())
        session.send(b"\n")
        while viewing.end is None:
            look(viewing)
        assert text_of(viewing.screen) == wanted and viewing.screen.is_alternate


def test_a_killed_daemon_and_a_size_that_was_changed_meanwhile_go_unnoticed(world, pg, name):
    session = start(pg, name, "stty -echo; echo ready; while read x; do echo got $x; done", size=(80, 24))
    with pg.open_channel("view") as channel:
        viewing = view(channel, session)
        for number in range(3):
            world.kill_daemon()
            session.resize(70 + number, 20)
            session.send(b"%d\n" % number)
            session.wait_for(b"got %d" % number, LIMIT_S)
            wanted = session.screen()
            wait_until(lambda: look(viewing) or text_of(viewing.screen) == text_of(wanted), "the screen")
            assert viewing.screen.size == wanted.size == (70 + number, 20)
    session.kill()


def test_sizes_stand_at_their_place_in_the_output(pg, name):
    session = start(pg, name, "stty -echo; echo ready; read x; printf '%060d' 1; read x; printf '%060d' 2; cat",
                    size=(50, 10))
    with pg.open_channel("view") as channel:
        viewing = view(channel, session)
        session.send(b"\n")
        session.wait_for(b"00001", LIMIT_S)
        session.resize(100, 10)
        session.send(b"\n")
        session.wait_for(b"00002", LIMIT_S)
        wanted = text_of(session.screen())
        wait_until(lambda: look(viewing) or text_of(viewing.screen) == wanted, "the screen")
        assert viewing.screen.lines[1].text.rstrip() == "0" * 50


def test_it_is_taken_with_the_facts_of_that_moment(pg, name):
    session = start(pg, name, "seq 100; printf ready; cat")
    with pg.open_channel("view") as channel:
        facts, replay = take(channel, session.name, 5)
    assert facts["id"] == session.id and replay.offset == facts["offsets"]["end"]
    assert [line.text.strip() for line in replay.screen.history] == ["73", "74", "75", "76", "77"]


def test_of_a_daemon_that_tells_no_past_the_screen_is_made_from_what_there_is():
    told = {"session": {"size": {"cols": 20, "rows": 4}}}
    whole = replayed(told, b"one\r\ntwo", 8)
    assert text_of(whole.screen) == "one\ntwo\n" and whole.screen.size == (20, 4)
    cut = replayed(told, b"1;31mcut\r\nwhole\r\n", 1000)
    assert text_of(cut.screen) == "whole\n" and cut.offset == 1000
