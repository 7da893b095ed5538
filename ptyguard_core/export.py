"""Export: a recording as a page that plays it, or as an animated picture.

Both are one file that loads nothing.  What is shown is made of rows: each that ever looked
different is kept once, and a frame says which of them have changed.

Rule 1: nothing that was recorded is markup, script or style here; render.py escapes it.
Rule 2: at most FRAMES_A_S frames a second: what is shown shorter nobody sees.
Rule 3: the page's one script is named by its hash in the page's own policy, so that no other
        could run; the picture has none, as a browser runs none in an <img>.

Not handled: scrollback, and blinking.
"""

import base64
import hashlib
import json

from .record import parse_size
from .render import CELL_HEIGHT, HtmlRows, SvgRows
from .screen import Screen

FRAMES_A_S = 30
COLS_MAX, ROWS_MAX = 1000, 500          # of a picture; what is larger is cut there
LAST_FRAME_S = 2.0                      # before the picture begins again


class Film:
    """Rows that are kept once, and which of them are shown when."""

    def __init__(self, painter, size, events):
        self.rows = [""]                # markup; 0 is a blank row
        self.frames = []                # (seconds, {y: index of the row from then on})
        self.size = _capped(size)       # the largest that the screen had
        self._painter = painter
        self._indexes = {"": 0}
        self._shown = []
        self.end_s = self._run(events)

    def _run(self, events):
        screen = Screen(self.size, history_max=0)
        self._show(0.0, screen)
        began_at = None                 # of what is not shown yet
        last = 0.0
        for last, code, text in events:
            if began_at is not None and last >= began_at + 1 / FRAMES_A_S:
                self._show(began_at, screen)
                began_at = None
            if code == "o":
                screen.feed(text.encode("utf-8", "replace"))
            elif code == "r" and parse_size(text):
                size = _capped(parse_size(text))
                screen.resize(size)
                self.size = max(self.size[0], size[0]), max(self.size[1], size[1])
            if began_at is None:
                began_at = last
        if began_at is not None:
            self._show(began_at, screen)
        return last

    def _show(self, seconds, screen):
        rows = [self._index(markup) for markup in self._painter.rows(screen)]
        before = self._shown
        self._shown = rows + [0] * (len(before) - len(rows))
        before = before + [0] * (len(rows) - len(before))
        changes = {y: row for y, (row, old) in enumerate(zip(self._shown, before)) if row != old}
        if changes and self.frames and self.frames[-1][0] == seconds:
            self.frames[-1][1].update(changes)
        elif changes:
            self.frames.append((seconds, changes))

    def _index(self, markup):
        if markup not in self._indexes:
            self._indexes[markup] = len(self.rows)
            self.rows.append(markup)
        return self._indexes[markup]

    @property
    def last(self):
        """The rows that are shown in the end."""
        shown = [self.rows[index] for index in self._shown]
        return shown + [""] * (self.size[1] - len(shown))


def _capped(size):
    return min(size[0], COLS_MAX), min(size[1], ROWS_MAX)


# -- an animated picture -------------------------------------------------------------------

def export_svg(size, events, title=""):
    """`events` as record.in_time gives them; the picture as text."""
    painter = SvgRows()
    film = Film(painter, size, events)
    # Two of them may stand in one page, where names are common to all.
    mark = "r" + hashlib.sha256("".join(film.rows).encode("utf-8", "replace")).hexdigest()[:8] + "-"
    defs = [f'<g id="{mark}{index}">{markup}</g>' for index, markup in enumerate(film.rows)]
    body = ["<defs>"] + defs + ["</defs>"]
    length_s = film.end_s + LAST_FRAME_S
    for y in range(film.size[1]):
        changes = [(seconds, frame[y]) for seconds, frame in film.frames if y in frame]
        body += _animated_row(mark, y * CELL_HEIGHT, changes, length_s)
    return painter.window(film.size, title, body)


def _animated_row(mark, top, changes, length_s):
    if not changes:
        return []
    if changes[0][0] > 0:
        changes = [(0.0, 0)] + changes
    use = f'<use y="{top}" href="#{mark}{changes[0][1]}"'
    if len(changes) == 1:
        return [use + "/>"]
    values = ";".join(f"#{mark}{index}" for _, index in changes)
    times = ";".join(f"{seconds / length_s:.7f}".rstrip("0").rstrip(".") for seconds, _ in changes)
    return [f'{use}><animate attributeName="href" calcMode="discrete" dur="{length_s:.3f}s" '
            f'repeatCount="indefinite" values="{values}" keyTimes="{times}"/></use>']


# -- a page ----------------------------------------------------------------------------------

_CSS = """
.play{display:flex;gap:8px;align-items:center;height:36px;padding:0 12px;background:#2d2d2d;color:#c8c8c8;font-size:13px}
.play button,.play select{background:#444;color:#eee;border:0;border-radius:4px;height:24px;font:inherit;min-width:32px}
.play input{flex:1;min-width:40px}
.screen>div{min-height:17px}"""

_BAR = ('<div class="play"><button id="go" type="button" aria-label="Play or pause">&#9654;</button>'
        '<input id="at" type="range" min="0" step="any" value="0" aria-label="Position"/>'
        '<span id="time"></span><select id="speed" aria-label="Speed">'
        + "".join(f'<option value="{speed}"{" selected" if speed == 1 else ""}>{speed}&#215;</option>'
                  for speed in (0.5, 1, 2, 4, 8)) + "</select></div>")

_SCRIPT = """
"use strict";
(function () {
  var film = JSON.parse(document.getElementById("film").textContent);
  var lines = document.querySelectorAll(".screen>div"), go = document.getElementById("go");
  var at = document.getElementById("at"), speed = document.getElementById("speed");
  var clock = document.getElementById("time");
  var rows = [], shown = [], frame = -1, now = 0, since = null;
  for (var y = 0; y < lines.length; y++) { rows.push(0); shown.push(-1); }
  at.max = film.end;
  function text(ms) {
    var s = Math.floor(ms / 1000);
    return Math.floor(s / 60) + ":" + ("0" + s % 60).slice(-2);
  }
  function show(ms) {
    now = Math.max(0, Math.min(ms, film.end));
    if (frame >= 0 && film.times[frame] > now) { frame = -1; rows.fill(0); }
    while (frame + 1 < film.times.length && film.times[frame + 1] <= now) {
      var changes = film.changes[++frame];
      for (var i = 0; i < changes.length; i += 2) rows[changes[i]] = changes[i + 1];
    }
    rows.forEach(function (row, y) {
      if (row !== shown[y]) { lines[y].innerHTML = film.rows[row]; shown[y] = row; }
    });
    at.value = now;
    clock.textContent = text(now) + " / " + text(film.end);
  }
  function step(time) {
    if (since === null) return;
    show(now + (time - since) * speed.value);
    since = time;
    if (now >= film.end) pause(); else requestAnimationFrame(step);
  }
  function pause() { since = null; go.textContent = "\\u25b6"; }
  function play() {
    if (now >= film.end) show(0);
    go.textContent = "\\u275a\\u275a";
    since = performance.now();
    requestAnimationFrame(step);
  }
  function toggle() { if (since === null) play(); else pause(); }
  go.addEventListener("click", toggle);
  at.addEventListener("input", function () { show(+at.value); });
  document.addEventListener("keydown", function (event) {
    if (event.target.tagName === "SELECT" || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === " " && event.target !== go) toggle();
    else if (event.key === "ArrowLeft") show(now - 5000);
    else if (event.key === "ArrowRight") show(now + 5000);
    else return;
    event.preventDefault();
  });
  var start = /^#t=([0-9.]+)$/.exec(location.hash);
  show(start ? start[1] * 1000 : 0);
})();
"""


def export_html(size, events, title=""):
    """`events` as record.in_time gives them; the page as text."""
    painter = HtmlRows()
    film = Film(painter, size, events)
    told = {"end": round(film.end_s * 1000), "rows": film.rows,
            "times": [round(seconds * 1000) for seconds, _ in film.frames],
            "changes": [[number for change in frame.items() for number in change] for _, frame in film.frames]}
    # No "<" can end the element that holds it, or begin a comment there.
    data = json.dumps(told, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode("utf-8")).digest()).decode("ascii")
    after = (f'{_BAR}\n<script type="application/json" id="film">{data}</script>\n'
             f"<script>{_SCRIPT}</script>")
    # What is there without a script is how it ended.
    return painter.page(film.size, title, film.last, _CSS, f"; script-src 'sha256-{digest}'", after)
