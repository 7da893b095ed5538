"""Whose keys are whose while a terminal is lent: on a clock that is set."""

from ptyguard_core.lending import UNREAD_S, Lending
from ptyguard_core.loop import Loop


class House:
    """A terminal that the daemon has, and a loop that never sleeps."""

    def __init__(self):
        self.now = 0.0
        self.asked = []
        self.has_keys = True
        self.loop = Loop(self, lambda: self.now)
        self.lending = Lending(self.loop, True, self.ask, lambda: self.has_keys)
        self.lending.offer(None)
        self.lending.hear_reply({"id": 1})
        self.lending.go()

    def ask(self, verb, **_fields):
        self.asked.append(verb)
        return len(self.asked)

    def poll(self, _timeout_s):
        return []

    def wait(self, seconds):
        self.now += seconds
        self.loop.turn()


def test_keys_that_lie_unread_are_not_read_by_two():
    house = House()
    house.lending.see_key(lambda: None)
    assert not house.lending.reads_keys
    house.wait(UNREAD_S)
    assert house.asked == ["lend", "reclaim"]
    assert not house.lending.reads_keys             # the daemon may be reading this very moment
    house.lending.hear_returned({"reason": "asked"})
    assert house.lending.reads_keys and not house.lending.is_ours
    house.lending.hear_reply({"id": 2})
    assert house.lending.may_offer                  # whoever merely was busy gets it again


def test_keys_are_ours_when_the_daemon_does_not_give_them_back():
    house = House()
    house.lending.see_key(lambda: None)
    house.wait(UNREAD_S)
    house.wait(UNREAD_S)
    assert house.lending.reads_keys


def test_keys_that_the_daemon_takes_are_left_to_it():
    house = House()
    house.lending.see_key(lambda: None)
    house.has_keys = False
    house.wait(UNREAD_S)
    assert house.asked == ["lend"] and house.lending.watches_keys and not house.lending.reads_keys


def test_what_was_watched_before_it_came_back_fires_no_more():
    house = House()
    house.lending.see_key(lambda: None)
    house.lending.hear_returned({"reason": "lagged"})
    house.wait(2 * UNREAD_S)
    assert house.asked == ["lend"] and house.lending.reads_keys
