"""A judged clip as one page of HTML to keep, print and quote from: no script, nothing fetched from elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any

from detector.card import ModelCard
from detector.types import Label, UInt8Array
from pipelines.evidence import Explained
from pipelines.text import on_one_line
from pipelines.timeline import Timeline
from webapp.cardfacts import AUC_WORDS, MISSES, SAID, real_rule, tested
from webapp.report_style import CSS
from webapp.report_timeline import timeline_svg
from webapp.view import WORDS, faces_html, moment_html, moments_html, segments_html, sentence, verdict_html

_CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True)
class ClipFile:
    """The file that was judged: its name, which may hold anything, the SHA-256 of its bytes (hex), and their number."""

    name: str
    sha256: str
    bytes: int


def report_html(
    record: Mapping[str, Any],
    card: ModelCard,
    *,
    file: ClipFile,
    settings: Mapping[str, str],
    thumbnails: Mapping[int, UInt8Array],
    moments: Sequence[Explained],
    timeline: Timeline,
    made_at: datetime,
) -> str:
    """The whole page, with a line end.

    Args:
        record: of the clip, schema ``tellframe.clip/1``.
        card: of the model that scored.
        file: what was judged.
        settings: how it was judged: what, and its value, as texts.
        thumbnails: RGB pictures of faces, by track.
        moments: the most suspicious, in order of time.
        timeline: of the clip.
        made_at: with its time zone.

    Raises:
        ValueError: the card is not of the model that scored, or ``made_at`` has no time zone.
    """
    if record["model"]["sha256"] != card.sha256:
        raise ValueError(f"the clip was judged by {record['model']['name']}, but the card is of {card.name}")
    if made_at.tzinfo is None:
        raise ValueError(f"made_at needs a time zone, got {made_at.isoformat()}")
    name = _text(file.name)
    sections = (
        verdict_html(record, sentence(record)),
        _seen(record, timeline, moments, thumbnails) if record["faces"] else "",
        _pair(_tested(card), _words(card)),
        _section("What it misses", '<ul class="misses">' + "".join(f"<li>{escape(m)}</li>" for m in MISSES) + "</ul>"),
        _about(record, card, file, settings, made_at),
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_CSP}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{WORDS[Label(record["verdict"])]}: {name}</title>
<style>
{CSS}</style>
</head>
<body>
<main>
<h1><span>Tellframe report</span> {name}</h1>
{"".join(sections)}</main>
</body>
</html>
"""


def _seen(
    record: Mapping[str, Any], timeline: Timeline, moments: Sequence[Explained], thumbnails: Mapping[int, UInt8Array]
) -> str:
    """What was seen of the faces: over time, each of them, and where they were most suspicious."""
    drawing = timeline_svg(timeline, record["segments"], [each.moment.pts_s for each in moments])
    title = "<b>Suspicious stretches:</b>" if record["segments"] else ""
    stretches = f'<div class="stretches">{title}{segments_html(record["segments"], seeks=False)}</div>'
    faces = faces_html(record["faces"], thumbnails, seeks=False)
    items = [
        moment_html(m.moment.pts_s, m.moment.track, m.moment.p_frame, m.moment.view, m.heat, m.region, seeks=False)
        for m in moments
    ]
    return _pair(_section("Over time", drawing + stretches), _section("Faces", faces)) + _section(
        "The most suspicious frames", moments_html(items)
    )


def _about(
    record: Mapping[str, Any], card: ModelCard, file: ClipFile, settings: Mapping[str, str], made_at: datetime
) -> str:
    lost = "".join(f", {record[key]} {key}" for key in ("dropped", "broken", "reconnects") if record[key])
    others = [model["name"] for model in record["models"] if model["name"] != card.name]
    also = {"Also in use": f"{', '.join(others)} (scores brought onto the scale of {card.name})"} if others else {}
    facts = {
        "File": f"{file.name}; {file.bytes:,} bytes; {record['duration_s']:.1f} s, {record['frames']} frames{lost}",
        "Its SHA-256": file.sha256,
        **settings,
        "Model": f"{card.name}, SHA-256 {card.sha256}",
        **also,
        "Its licence": card.licence,
        "Report made": f"{made_at:%Y-%m-%d %H:%M:%S} {made_at.tzname()}, by Tellframe {_version()}",
    }
    return _section("The file, and how it was judged", _facts(facts))


def _words(card: ModelCard) -> str:
    thresholds = card.thresholds
    meanings = {
        "p(fake)": "The score of a face: from 0, real, to 1, fake; the mean over its usable frames. The video gets the "
        "word of its most suspicious face.",
        WORDS[Label.REAL]: f"Below {thresholds.real_below:.2f}: no sign of manipulation was found. A manipulation that "
        "this model does not know looks the same.",
        WORDS[Label.FAKE]: f"Above {thresholds.fake_above:.2f}: the face bears traces like those that changing a face "
        f"leaves. Ordinary causes can leave them too.{_rule(card)}",
        WORDS[Label.UNSURE]: "Between the two, or the scores disagree, or the face cannot be judged: see the reason.",
        WORDS[Label.NO_FACE]: "No face was found; nothing was judged.",
    }
    return _section("What the words mean", _facts(meanings))


def _rule(card: ModelCard) -> str:
    """What the upper threshold promises, as far as the card says."""
    rule = real_rule(card.measured)
    if rule is None:
        return ""
    return f" It lies where at least {rule[0]:.0%} of {rule[1]} real test clips are not called {WORDS[Label.FAKE]}."


def _tested(card: ModelCard) -> str:
    rows = list(tested(card.measured))
    said = " / ".join(WORDS[label] for label in SAID)
    head = ("tested on", "fake / real", f"said {said}", "AUC (95 %)")
    table = (
        f'{_table(head, rows)}<p class="tf-note">{escape(AUC_WORDS)}</p>'
        if rows
        else "<p>The model's card holds no test.</p>"
    )
    return _section("What the model was tested on", table)


def _version() -> str:
    try:
        return installed_version("tellframe")
    except PackageNotFoundError:
        return "(not installed as a package)"


def _pair(first: str, second: str) -> str:
    """Two sections, side by side where there is room."""
    return f'<div class="pair">{first}{second}</div>\n'


def _section(title: str, body: str) -> str:
    return f"<section><h3>{escape(title)}</h3>{body}</section>\n"


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{_text(key)}</dt><dd>{_text(value)}</dd>" for key, value in facts.items())
    return f"<dl>{rows}</dl>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="scroll"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>'


def _text(text: str) -> str:
    """A text from outside as HTML: it may hold anything, and a report is printed and quoted from."""
    return escape(on_one_line(text))
