"""A judged frame as plain data: a JSON object, or rows of a table. Pure.

A value that is not known is null in JSON and empty in CSV; so is one that is not finite, since neither format has a
word for it.
"""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

from detector.types import NS_PER_S, FaceVerdict, FrameResult
from pipelines.text import plain

SCHEMA = "tellframe.frame/1"

CSV_HEADER = (
    "path",  # the clip, as the user named it
    "index",  # position of the frame in the clip, from 0
    "pts_s",  # presentation time in seconds
    "verdict",  # REAL | FAKE | UNSURE | NO_FACE, of the frame
    "reason",
    "p_fake",  # 0..1, of the frame; empty when no face has a score
    "track",  # id of the face, from 1; this and the next seven are empty when there is no face
    "x1",  # box of the face in pixels
    "y1",
    "x2",
    "y2",
    "face_p_fake",
    "face_verdict",
    "face_reason",
    "find_ms",
    "crop_ms",
    "score_ms",
    "total_ms",
    "dropped",  # frames lost before this one
    "fresh",  # true | false: judged in this frame, or carried over
    "model",
    "find_every",  # faces were looked for in every n-th frame
    "score_every",  # ... and scored in every n-th
)


def frame_record(result: FrameResult, path: str) -> dict[str, Any]:
    """The JSON object of one frame, its keys in the order of the schema ``tellframe.frame/1``.

    Args:
        result: the judged frame.
        path: the clip it belongs to, as the user named it.

    Returns:
        str, int, bool, float and None only; every float finite. Times in seconds (6 decimals) and ms (3), boxes in
        pixels (1), probabilities 0..1 (6).
    """
    verdict, timing = result.verdict, result.timing
    return {
        "schema": SCHEMA,
        "path": plain(path),
        "index": int(result.frame.index),
        "pts_s": _number(result.frame.pts_ns / NS_PER_S, 6),
        "verdict": verdict.label.value,
        "reason": verdict.reason.value,
        "p_fake": _number(verdict.p_fake, 6),
        "faces": [_face_record(face) for face in verdict.faces],
        "timing_ms": {
            "find": _number(timing.find_ms, 3),
            "crop": _number(timing.crop_ms, 3),
            "score": _number(timing.score_ms, 3),
            "total": _number(timing.total_ms, 3),
        },
        "dropped": int(result.dropped),
        "fresh": bool(result.fresh),
        "model": plain(result.model),
        "find_every": int(result.pace.find_every),
        "score_every": int(result.pace.score_every),
    }


def json_line(result: FrameResult, path: str) -> str:
    """:func:`frame_record` as one line of JSON, ASCII only, with its line end."""
    return json.dumps(frame_record(result, path), allow_nan=False, separators=(",", ":")) + "\n"


def csv_rows(result: FrameResult, path: str) -> list[list[str]]:
    """The rows of one frame, as cells in the order of ``CSV_HEADER``: one a face, and one when there is none."""
    record = frame_record(result, path)
    frame = [record[key] for key in ("path", "index", "pts_s", "verdict", "reason", "p_fake")]
    how = [record[key] for key in ("dropped", "fresh", "model", "find_every", "score_every")]
    cost = [*record["timing_ms"].values(), *how]
    faces: list[list[Any]] = [
        [face["track"], *face["xyxy"], face["p_fake"], face["verdict"], face["reason"]] for face in record["faces"]
    ]
    return [[_cell(value) for value in (*frame, *face, *cost)] for face in faces or [[None] * 8]]


def csv_lines(rows: list[list[str]]) -> str:
    """``rows`` as CSV text: RFC 4180 quoting, but a line ends as Unix tools expect."""
    lines = []
    for row in rows:
        text = io.StringIO()
        # Told to end lines with "\n" alone, csv would leave a carriage return in a name unquoted.
        csv.writer(text, lineterminator="\r\n").writerow(row)
        lines.append(text.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)


def _face_record(face: FaceVerdict) -> dict[str, Any]:
    return {
        "track": int(face.track),
        "xyxy": [_number(value, 1) for value in face.xyxy],
        "p_fake": _number(face.p_fake, 6),
        "verdict": face.label.value,
        "reason": face.reason.value,
    }


def _number(value: float | None, digits: int) -> float | None:
    """A plain finite float (numpy's are not JSON), or None."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), digits) + 0.0  # + 0.0: no "-0.0"


def _cell(value: str | float | bool | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
