"""A clip's record (schema ``tellframe.clip/1``) and its pictures -> what the page and the report show. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import cv2

from detector.explain import EXPLANATION
from detector.types import Label, Reason, UInt8Array
from webapp.cardfacts import HELP, WHY_UNSURE

WORDS: Final = {
    Label.REAL: "Real",
    Label.FAKE: "Fake",
    Label.UNSURE: "Not sure",
    Label.NO_FACE: "No face",
}
"""What the page calls the verdicts."""
ICONS: Final = {Label.REAL: "✓", Label.FAKE: "!", Label.UNSURE: "?", Label.NO_FACE: "–"}
"""Beside every word: a verdict is never told by its colour alone."""
LIMITS: Final = (
    "A score is evidence, not proof. This detector errs in both directions, most of all on kinds of manipulation it "
    "never saw, on strong compression, and on small, dark or blurred faces."
)
_GRAVEST_FIRST: Final = (Label.FAKE, Label.UNSURE, Label.REAL, Label.NO_FACE)
_MOST_FACES = 9  # a crowd must not bury the face that matters
_MOST_SEGMENTS = 24


def sentence(record: Mapping[str, Any]) -> str:
    """What can be quoted of a clip: who says it, what, how surely, on what ground, and how far that goes.

    Args:
        record: of the clip.
    """
    label, faces = Label(record["verdict"]), record["faces"]
    if label is Label.NO_FACE:
        said = f"found no face in {record['duration_s']:.1f} seconds of video. That says nothing about the video."
    elif label is Label.UNSURE:
        which, it = ("face in this video is", "it")
        if len(faces) > 1:
            which, it = ("faces in this video are", "the one that matters most")
        said = (
            f"cannot tell whether the {which} real: {it} {WHY_UNSURE[Reason(record['reason'])]} ({_ground(record)}). "
            "That speaks neither for nor against the video."
        )
    else:
        found, limit = {
            Label.FAKE: ("signs of manipulation", "is evidence, not proof"),
            Label.REAL: ("no sign of manipulation", "does not prove that the video is real"),
        }[label]
        said = (
            f"found {found} in {_where(label, faces)} in this video, with {_confidence(label, record['p_fake'])} "
            f"confidence ({_ground(record)}). That {limit}."
        )
    cut = "" if record["complete"] else " Only the beginning of the video was judged."
    return f"Tellframe, an automatic detector, {said}{cut}"


def badge_html(label: str) -> str:
    """A verdict as icon and word, in its colour."""
    known = Label(label)
    return (
        f'<span class="tf-badge tf-{known.value}"><span class="tf-icon" aria-hidden="true">{ICONS[known]}</span>'
        f"{WORDS[known]}</span>"
    )


def verdict_html(record: Mapping[str, Any], sentence: str) -> str:
    """The verdict on a clip: the word, the sentence to quote, what would help, and what it rests on.

    Args:
        record: of the clip.
        sentence: what is said of it.
    """
    score = "" if record["p_fake"] is None else f"p(fake) {record['p_fake']:.2f} · "
    cut = "" if record["complete"] else " · cut short: only its beginning was judged"
    facts = (
        f"{score}{record['frames_scored']} of {record['frames']} frames scored · {record['duration_s']:.1f} s of video"
        f"{cut}"
    )
    helps = HELP.get(Reason(record["reason"]))
    asked = "" if helps is None else f'<p class="tf-help"><b>What would help:</b> {escape(helps)}</p>'
    return (
        f'<section class="tf-verdict tf-{record["verdict"]}" aria-live="polite">'
        f"<h2>{badge_html(record['verdict'])}</h2>"
        f'<p class="tf-sentence">{escape(sentence)}</p>{asked}'
        f'<p class="tf-facts">{escape(facts)}</p>'
        f'<p class="tf-limits">{escape(LIMITS)}</p></section>'
    )


def progress_html(words: str, share: float | None = None, *, kind: str = "running") -> str:
    """One line and a bar, always of the same height.

    Args:
        words: what is going on, or what went wrong.
        share: how much is done, 0..1; None when that is not known.
        kind: "idle", "running", "done" or "error".
    """
    value = "" if share is None else f' value="{share:.3f}"'
    bar = f'<progress max="1"{value} aria-label="progress"></progress>' if kind == "running" else ""
    role = "alert" if kind == "error" else "status"
    icon = '<span class="tf-icon" aria-hidden="true">!</span> ' if kind == "error" else ""
    return f'<div class="tf-progress tf-progress-{kind}" role="{role}"><p>{icon}{escape(words)}</p>{bar}</div>'


def faces_html(faces: Sequence[Mapping[str, Any]], thumbnails: Mapping[int, UInt8Array], *, seeks: bool = True) -> str:
    """A card a face, the gravest first: its picture, its verdict and why, its score, and when it is seen.

    Args:
        faces: of the record.
        thumbnails: by track, RGB; a face may have none.
        seeks: whether there is a player, which a click on a time moves.
    """
    ranked = sorted(faces, key=lambda face: (_GRAVEST_FIRST.index(Label(face["verdict"])), -(face["p_fake"] or 0.0)))
    cards = []
    for face in ranked[:_MOST_FACES]:
        track = int(face["track"])
        shown = thumbnails.get(track)
        picture = '<div class="tf-nopic"></div>' if shown is None else picture_html(shown, f"face {track}")
        score = "no score" if face["p_fake"] is None else f"p(fake) {face['p_fake']:.2f}"
        seen = (
            f"{int(face['frames'])} frames, {_time_html(face['first_s'], seeks=seeks)} to "
            f"{_time_html(face['last_s'], seeks=seeks)}"
        )
        cards.append(
            f'<li class="tf-card tf-{face["verdict"]}">{picture}<div>'
            f"<h4>Face {track} {badge_html(face['verdict'])}</h4>"
            f"<p>{escape(score)}: {escape(face['reason'])}</p><p>{seen}</p></div></li>"
        )
    notes = []
    if len(faces) > 1:
        notes.append("A face that is lost from sight and found again is counted anew.")
    if len(faces) > _MOST_FACES:
        notes.append(f"{len(faces) - _MOST_FACES} more, less suspicious, are in the JSON file.")
    note = f'<p class="tf-note">{" ".join(notes)}</p>' if notes else ""
    return f'<ul class="tf-cards" aria-label="Faces">{"".join(cards)}</ul>{note}' if cards else ""


def segments_html(segments: Sequence[Mapping[str, float]], *, seeks: bool = True) -> str:
    """The suspicious stretches, the first 24; a click on one takes the player there, if it ``seeks``."""
    if not segments:
        return '<p class="tf-none">No stretch of the video was called fake.</p>'
    items = [
        f"<li>{_time_html(s['start_s'], s['end_s'], seeks=seeks)} <span>p(fake) {s['p_fake']:.2f}</span></li>"
        for s in segments[:_MOST_SEGMENTS]
    ]
    if len(segments) > _MOST_SEGMENTS:
        items.append(f"<li>{len(segments) - _MOST_SEGMENTS} more are in the JSON file.</li>")
    return f'<ul class="tf-segments" aria-label="Suspicious stretches">{"".join(items)}</ul>'


def moment_html(
    seconds: float, track: int, p_frame: float, view: UInt8Array, heat: UInt8Array, region: str, *, seeks: bool = True
) -> str:
    """A suspicious moment: the face enlarged, beside it what drove the score, and the strongest part in words."""
    words = f"Face {track} at {seconds:.1f} s"
    return (
        f'<li class="tf-moment"><h4>{_time_html(seconds, seeks=seeks)} Face {track}: p(fake) {p_frame:.2f}</h4>'
        f"<div>{picture_html(view, words)}{picture_html(heat, f'{words}: what drove the score')}</div>"
        f"<p>Spoke most for fake: {escape(region)}.</p></li>"
    )


def moments_html(moments: Sequence[str]) -> str:
    """The moments (of :func:`moment_html`), and what the second picture of each means."""
    if not moments:
        return '<p class="tf-none">No frame had a face that could be scored.</p>'
    return f'<ul class="tf-moments">{"".join(moments)}</ul><p class="tf-note">{escape(EXPLANATION)}</p>'


def clock(seconds: float) -> str:
    """Minutes, seconds and tenths: 1:02.5."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def picture_html(rgb: UInt8Array, words: str) -> str:
    """An RGB picture, uint8 (h, w, 3), inside the page itself: no file to serve, and none to delete."""
    _, jpeg = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    data = base64.b64encode(jpeg.tobytes()).decode("ascii")
    size = f'width="{rgb.shape[1]}" height="{rgb.shape[0]}"'
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(words, quote=True)}" {size}>'


def _time_html(start_s: float, end_s: float | None = None, *, seeks: bool) -> str:
    """A time, or a stretch; as a button that takes the player there, or as plain text."""
    words = clock(start_s) if end_s is None else f"{clock(start_s)} - {clock(end_s)}"
    if not seeks:
        return f"<b>{words}</b>"
    where = f'data-seek="{start_s:.3f}" title="Show in the player"'
    return f'<button type="button" class="tf-seek" {where}>{words}</button>'


def _where(label: Label, faces: Sequence[Mapping[str, Any]]) -> str:
    """The faces of which the verdict speaks. "Followed": one that is lost and found again counts twice."""
    count = sum(face["verdict"] == label for face in faces)
    if len(faces) == 1:
        return "the face"
    if count == len(faces):
        return f"{'both' if count == 2 else f'all {count}'} faces followed"
    return f"{count} of the {len(faces)} faces followed"


def _confidence(label: Label, p_fake: float) -> str:
    """How far the score is from the middle, in a word: odds of 9 to 1 or more, of 3 to 1, or less.

    Odds by the detector's own scale, which was calibrated on clips of which half are fake (docs/model-card.md).
    """
    p = p_fake if label is Label.FAKE else 1 - p_fake
    return "high" if p >= 0.9 else "moderate" if p >= 0.75 else "low"


def _ground(record: Mapping[str, Any]) -> str:
    """The score that the verdict rests on, and how much was seen."""
    seen = f"{record['duration_s']:.1f} seconds of video"
    if record["p_fake"] is None:
        return f"no frame in {seen} could be scored"
    several = record["verdict"] != Label.UNSURE and sum(f["verdict"] == record["verdict"] for f in record["faces"]) > 1
    which = "their highest score" if several else "score"
    plural = "" if record["frames_scored"] == 1 else "s"
    return (
        f"{which} {record['p_fake']:.2f} where 0 is real and 1 is fake; "
        f"{record['frames_scored']} frame{plural} scored in {seen}"
    )
