"""Prompt: wait for what a program says, then answer, with nobody else's answer in between.

Whoever waits holds nobody up: the text is awaited without a turn among the sends.  The turn
is asked for with the number of sends that there were when the text was begun to be looked
for.  If another one came first, it has had that prompt, and the daemon refuses (docs/PROTOCOL.md,
Sending): then the text has to come again, behind what the other one typed.
"""

from .channel import Follower
from .errors import Busy
from .waiting import Search, ended_before


def answer(open_channel, target, pattern, type_, patience, since=None):
    """(the match, what `type_` returned): wait for `pattern`, then type.

    `type_(channel, target, sends, timeout_s)` sends, and closes the channel.  The output is
    looked at `since` an offset, "now" or "oldest"; None is from the end of the last send on,
    the oldest if there was none.  Raises TimedOut and PtyguardError as `wait_for_texts` and
    `send_input` do; what was not found in time is not answered.
    """
    sends = None
    while True:
        match, follower, sends = _find(open_channel, target, pattern, patience, since, sends)
        target = "@" + follower.session["id"]
        try:
            return match, type_(open_channel("send"), target, sends, patience.left())
        except Busy as error:
            if "sends" not in error.details:
                raise
            sends, since = error.details["sends"], error.details["sent_at"] or 0


def _find(open_channel, target, pattern, patience, since, sends):
    """(the match, the follower that saw it, how many sends there were before it was looked for)."""
    search = Search(pattern, patience=patience)
    with open_channel("wait") as channel:
        follower = Follower(channel, target, "oldest" if since is None else since, mode="attach")
        begin = 0 if since is not None else follower.sent_at or 0
        for offset, piece in follower.pieces(patience.left()):
            if search.feed(piece[max(0, begin - offset):]) is not None:
                return search.match, follower, follower.sends if sends is None else sends
    raise ended_before(follower, "the text came")
