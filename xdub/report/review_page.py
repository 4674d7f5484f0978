"""The page on which a person accepts or rejects the masks of clips with the keyboard."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from xdub.report.page import STYLE

FACE, OBJECT = (46, 160, 67), (218, 54, 51)
"""Colours of the face mask and of the objects in front of it."""
QUALITY = 80
"""Quality of the pictures."""
SCRIPT = """
const rows = [...document.querySelectorAll('.clip')];
const key = 'xdub-review:' + document.body.dataset.set;
const decisions = JSON.parse(localStorage.getItem(key) || '{}');
let current = 0;
function show() {
  rows.forEach((row, number) => {
    row.classList.toggle('current', number === current);
    row.dataset.decision = decisions[row.id] || '';
  });
  document.querySelector('#count').textContent = Object.keys(decisions).length + ' of ' + rows.length;
}
function move(step) {
  current = Math.max(0, Math.min(rows.length - 1, current + step));
  show();
  rows[current].scrollIntoView({block: 'center'});
}
function decide(decision) {
  if (decision) decisions[rows[current].id] = decision; else delete decisions[rows[current].id];
  localStorage.setItem(key, JSON.stringify(decisions));
  if (decision) move(1); else show();
}
function save() {
  const lines = Object.entries(decisions).map(([clip_id, decision]) => JSON.stringify({clip_id, decision}) + '\\n');
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob(lines, {type: 'application/jsonl'}));
  link.download = 'decisions.jsonl';
  link.click();
}
const actions = {j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
  a: () => decide('accept'), r: () => decide('reject'), u: () => decide(''), s: save};
document.addEventListener('keydown', event => {
  const action = event.ctrlKey || event.metaKey || event.altKey ? undefined : actions[event.key];
  if (action) { event.preventDefault(); action(); }
});
rows.forEach((row, number) => row.addEventListener('click', () => { current = number; show(); }));
document.querySelector('#save').addEventListener('click', save);
show();
"""
"""Keys, the state of the decisions in the browser, and their file."""
OWN_STYLE = """
.clip { border-left: 4px solid transparent; padding: 8px 12px; margin: 6px 0; border-radius: 6px; }
.clip.current { background: var(--wash); border-left-color: var(--accent); }
.clip[data-decision=accept] h3::after { content: ' accepted'; color: #2ea043; }
.clip[data-decision=reject] h3::after { content: ' rejected'; color: #da3633; }
.clip img { max-width: 100%; border-radius: 4px; }
kbd { border: 1px solid var(--line); border-radius: 4px; padding: 0 5px; }
"""
"""Style of the rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReviewedClip:
    """One row of the page."""

    clip_id: str
    source: str
    share: float
    """Share of the face's pixels that objects cover."""
    frames: np.ndarray
    """[K, S, S, 3] uint8, a few frames"""
    face: np.ndarray
    """[K, S, S] bool"""
    objects: np.ndarray
    """[K, S, S] bool"""


def review_page(title: str, clips: Iterable[ReviewedClip]) -> str:
    """Return the page as HTML; ``title`` names the data set, and decisions are kept in the browser under it."""
    rows = "".join(
        f'<div class="clip" id="{escape(clip.clip_id, quote=True)}"><h3>{escape(clip.source)}</h3>'
        f'<p class="note">{clip.clip_id} · {100 * clip.share:.1f} % of the face covered</p>'
        f'<img alt="masks" src="data:image/jpeg;base64,{_encoded(strip(clip))}"></div>'
        for clip in clips
    )
    keys = (
        "<kbd>j</kbd> <kbd>k</kbd> next and previous, <kbd>a</kbd> accept, <kbd>r</kbd> reject, <kbd>u</kbd> undo, "
        "<kbd>s</kbd> save"
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}{OWN_STYLE}</style></head><body data-set={json.dumps(escape(title, quote=True))}><main>"
        f'<header><p class="eyebrow">Masks</p><h1>{escape(title)}</h1><p>The face is green, objects in front of it are '
        f'red. {keys}. Decided: <b id="count"></b>. <button id="save">Save decisions.jsonl</button></p></header>'
        f"<section>{rows}</section></main><script>{SCRIPT}</script></body></html>"
    )


def strip(clip: ReviewedClip) -> np.ndarray:
    """Draw the frames of a clip in a row with the outlines of their masks, uint8 [S, K * S, 3]."""
    import cv2

    pictures = []
    for frame, face, objects in zip(clip.frames, clip.face, clip.objects, strict=True):
        picture = frame.copy()
        shown = objects & face
        picture[shown] = (0.5 * picture[shown] + 0.5 * np.array(OBJECT)).astype(np.uint8)
        for mask, colour in ((face, FACE), (shown, OBJECT)):
            lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, lines, -1, colour, max(1, len(frame) // 128))
        pictures.append(picture)
    return np.concatenate(pictures, axis=1)


def _encoded(picture: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=QUALITY)
    return base64.b64encode(data.getvalue()).decode()
