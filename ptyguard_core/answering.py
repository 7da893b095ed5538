"""Answering: programs that nobody views are answered as by a terminal.

While a terminal is attached that answers by itself, the daemon is silent; of several the
leader's answers count (replies.py).  Else it looks for queries in what it reads (queries.py)
and types the answers.  Most are a table's; where the cursor is and what is set needs a screen,
and that is the one that a daemon may keep:

Rule 1: answers come in the order of the queries, each with what held where its query stands.
Rule 2: a screen is made when somebody asks, from the output that is kept, and fed only up to
        what was asked.  It is fed in slices, one slice a turn of the loop whichever session it
        is of, and a slice ends after so many bytes or so much time.
Rule 3: all of it is bounded: queries that wait, screens that are kept.  A screen that is too
        far behind, so that what it has not seen is overwritten, is made anew.
Rule 4: a query that was read while nobody was there is answered here, also if somebody comes
        meanwhile: `answered` says which piece of output that holds for, and who reads it
        later must keep its terminal from answering.
"""

from collections import OrderedDict, deque

from .errors import OutputGap
from .queries import HELD_MAX, QueryFinder, answer, default_colours, needs_screen
from .replies import REST_S, ReplyFilter

SLICE_BYTES = 16 * 1024     # a turn ...
SLICE_S = 0.005             # ... or for so long
PIECE_BYTES = 512           # of which the worst that there is takes as long as a slice ...
PIECE_CELLS = 2048          # ... on a screen of that size; of larger ones it is less
SCREEN_CELLS_MAX = 64 * 1024    # one of 512 x 128; of a larger terminal a part is made
WAITING_MAX = 1024          # queries of one session ...
WAITING_BYTES = 64 * 1024   # ... or so much of them: of a program that reads no answer
SCREENS_MAX = 16            # kept for who has asked lately ...
CELLS_MAX = 256 * 1024      # ... or so many cells of them, some MiB
HISTORY_LINES = 200         # they come back when a screen grows, and move the cursor


def replay_of(session):
    """The screen of a session, as far back as its output is kept, with nothing of that shown."""
    from .replay import Replay
    facts = session.restore_facts()
    return Replay(dict(facts, offset=max(facts["offset"], session.ring.start_offset)), HISTORY_LINES,
                  SCREEN_CELLS_MAX)


def load_screen():
    """Load what makes a screen: soon after a daemon has begun to serve, for later its archive may
    be gone, and before that every terminal would wait for it."""
    from . import replay        # noqa: F401


class Questions:
    """What one session has asked and not been told, and its screen."""

    def __init__(self, colours):
        self.replay = None
        self._colours = colours
        self._waiting = deque()
        self._waiting_bytes = 0

    @property
    def is_empty(self):
        """Whether nothing waits for its answer."""
        return not self._waiting

    @property
    def cells(self):
        """How large its screen is."""
        cols, rows = self.replay.screen.size if self.replay is not None else (0, 0)
        return cols * rows

    @property
    def first_start(self):
        """Where in the output the first query stands that waits, or None."""
        return self._waiting[0].start if self._waiting else None

    def ask(self, query):
        """Queue one; the newest are lost when there are very many."""
        if len(self._waiting) < WAITING_MAX and self._waiting_bytes < WAITING_BYTES:
            self._waiting.append(query)
            self._waiting_bytes += len(query.text)

    def take_answers(self):
        """Answers to what stands first and can be answered as far as the screen has come, joined."""
        found = []
        while self._waiting:
            query = self._waiting[0]
            if needs_screen(query) and not self._has_reached(query):
                break
            self._waiting.popleft()
            self._waiting_bytes -= len(query.text)
            found.append(answer(query, self.replay and self.replay.screen, self._colours))
        return b"".join(found)

    def _has_reached(self, query):
        return self.replay is not None and self.replay.offset >= query.end

    def feed(self, ring, clock):
        """Show the screen a slice of what stands before the first query; answers, joined.

        The screen is given up when that has been overwritten.
        """
        deadline = clock() + SLICE_S
        left = SLICE_BYTES
        answers = [self.take_answers()]
        while self._waiting and left > 0 and clock() < deadline:
            piece = max(4, PIECE_BYTES * PIECE_CELLS // max(PIECE_CELLS, self.cells))
            count = min(piece, self._waiting[0].end - self.replay.offset, left)
            try:
                self.replay.feed(ring.read(self.replay.offset, count))
            except OutputGap:
                self.replay = None
                break
            left -= count
            answers.append(self.take_answers())
        return b"".join(answers)


class Answering:
    """All sessions' answers, and who among several terminals gives them.

    `type_answer(session, data)` types what is ours, `type_input(session, cursor, data)` what a
    client has typed.
    """

    def __init__(self, loop, settings, type_answer, type_input, make_replay=replay_of):
        self._loop = loop
        self._colours = default_colours(settings)
        self._make_replay = make_replay
        self._type_answer = type_answer
        self._type_input = type_input
        self._finders = {}              # session id -> QueryFinder, while nobody views it
        self._questions = OrderedDict()     # session id -> Questions; who asked last is last
        self._turns = deque()           # sessions whose screens are behind
        self._is_due = False
        self._answered = {}             # session id -> [start, end] of what was read unviewed
        self._replies = {}              # session id -> ReplyFilter, while several view it
        self._inherited = {}            # session id -> where the first query stands

    # -- output ----------------------------------------------------------------------------

    def on_output(self, session, count):
        """`count` bytes have come: whom do they ask?"""
        viewers = _viewers(session)
        if not viewers:
            self._find(session, count)
            return
        if session.id in self._finders:
            self._let_viewer_answer(session)
        if len(viewers) > 1:
            now = self._loop.clock()
            for view in _latest(session, count):
                self._filter(session).show(view, now)
        elif session.id in self._replies:
            self._stop_filtering(session)

    def adopt(self, session, asked_from):
        """A predecessor has left queries from that offset on, or None."""
        if asked_from is not None:
            self._inherited[session.id] = asked_from

    def has_inherited(self, session):
        """Whether a predecessor has left output that may ask something."""
        return session.id in self._inherited or session.ring.recovered_bytes > 0

    def on_adopted(self, session):
        """Nobody is there whose terminal will answer what a predecessor had not answered, or not
        even looked at."""
        ring = session.ring
        if ring is None or _viewers(session):
            return
        looked_to = ring.end_offset - ring.recovered_bytes
        begin = min(looked_to, self._inherited.pop(session.id, looked_to))
        if begin < ring.end_offset:
            self._find(session, ring.end_offset - begin)

    def on_skipped(self, session, cursor, count):
        """The last `count` bytes will not be shown to the terminal of a client that was too slow:
        if its answers would have counted, ours do."""
        if cursor.may_type and (cursor is session.leader or _viewers(session) == [cursor]):
            self._find(session, count)

    def _find(self, session, count):
        """Look for queries in the latest `count` bytes of a session that nobody views."""
        ring = session.ring
        end = ring.end_offset
        at = max(ring.start_offset, end - count)
        finder = self._finders.get(session.id)
        if finder is None:
            finder = self._begin(session, at)
        self._answered[session.id][1] = end
        answers = b""
        for view in _latest(session, count):
            at += len(view)
            answers += b"".join([self._ask(session, query) for query in finder.find(view, at)])
        if answers:
            self._type_answer(session, answers)

    def _begin(self, session, start):
        """From `start` on nobody views it; what stands before may be a query's beginning."""
        ring = session.ring
        before = max(ring.start_offset, start - HELD_MAX)
        finder = self._finders[session.id] = QueryFinder(ring.read(before, start - before))
        self._answered[session.id] = [start - finder.held_bytes, start]
        return finder

    def _let_viewer_answer(self, session):
        del self._finders[session.id]
        questions = self._questions.get(session.id)
        if questions is not None and questions.is_empty:
            del self._questions[session.id]

    def answered(self, session):
        """[start, end] of the output whose queries are answered already, by us."""
        return list(self._answered.get(session.id, (0, 0)))

    def first_unanswered(self, session):
        """Where in the output of a session that nobody views the first query stands that waits
        for its answer, or None."""
        questions = self._questions.get(session.id)
        return questions.first_start if questions is not None else None

    def on_end(self, session):
        """Nobody is there any more who would read an answer."""
        for kept in (self._finders, self._questions, self._replies, self._inherited):
            kept.pop(session.id, None)

    def forget(self, session):
        """It is gone."""
        self.on_end(session)
        self._answered.pop(session.id, None)

    def on_resized(self, session):
        """Its screen is another; the next query finds out which."""
        questions = self._questions.get(session.id)
        if questions is not None:
            questions.replay = None

    # -- the screen ------------------------------------------------------------------------

    def _ask(self, session, query):
        """The answer, if it can be given now; empty if it comes later."""
        questions = self._questions.get(session.id)
        if not needs_screen(query) and (questions is None or questions.is_empty):
            return answer(query)
        if questions is None:
            questions = self._questions[session.id] = Questions(self._colours)
        if questions.is_empty:
            self._turns.append(session)
            self._feed_soon()
        self._questions.move_to_end(session.id)
        questions.ask(query)
        return b""

    def _drop_surplus(self):
        """Give up screens of those who have not asked for longest and are owed nothing."""
        surplus = len(self._questions) - SCREENS_MAX
        cells = sum(each.cells for each in self._questions.values())
        for id_, each in list(self._questions.items()):
            if surplus <= 0 and cells <= CELLS_MAX:
                return
            if each.is_empty:
                surplus -= 1
                cells -= each.cells
                del self._questions[id_]

    def _feed_soon(self):
        if self._turns and not self._is_due:
            self._is_due = True
            self._loop.soon(self._feed)

    def _feed(self):
        """One slice for one session."""
        self._is_due = False
        session = self._turns.popleft()
        questions = self._questions.get(session.id)
        if questions is not None and session.ring is not None:
            answers = self._slice(session, questions)
            if answers:
                self._type_answer(session, answers)
            if not questions.is_empty:
                self._turns.insert(SCREENS_MAX - 1, session)    # those behind have no screen yet
            elif _viewers(session):
                del self._questions[session.id]
            self._drop_surplus()
        self._feed_soon()

    def _slice(self, session, questions):
        if questions.replay is None:
            questions.replay = self._make_replay(session)
        return questions.feed(session.ring, self._loop.clock)

    # -- several terminals -------------------------------------------------------------------

    def on_resume(self, session):
        """A client is given output of before: what it asks may be answered a second time."""
        if len(_viewers(session)) > 1:
            self._filter(session).note_query(self._loop.clock())

    def take_input(self, session, cursor, data):
        """What is to be typed of what a client sent; a rest may be typed later."""
        replies = self._replies.get(session.id)
        if replies is None or not cursor.is_interactive:
            return data
        data = replies.take(cursor, data, cursor is session.leader, self._loop.clock())
        if replies.is_holding(cursor):
            held = replies.held(cursor)
            self._loop.after(REST_S, lambda: self._release(session, replies, cursor, held))
        return data

    def _release(self, session, replies, cursor, held):
        """Nothing followed what might have been the beginning of an answer."""
        if replies.held(cursor) is held:
            self._type_input(session, cursor, replies.release(cursor))

    def _filter(self, session):
        replies = self._replies.get(session.id)
        if replies is None:
            replies = self._replies[session.id] = ReplyFilter()
        return replies

    def _stop_filtering(self, session):
        for cursor, data in self._replies.pop(session.id).release_all():
            self._type_input(session, cursor, data)

    def release_all(self, sessions):
        """We leave: what is held is typed."""
        for session in sessions:
            if session.id in self._replies:
                self._stop_filtering(session)


def _viewers(session):
    """Those whose terminals answer."""
    return [cursor for cursor in session.cursors if cursor.is_viewer and cursor.may_type]


def _latest(session, count):
    """The newest `count` bytes of a session's output, as views."""
    ring = session.ring
    start = max(ring.start_offset, ring.end_offset - count)
    return ring.views(start, ring.end_offset - start)
