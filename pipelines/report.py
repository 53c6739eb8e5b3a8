"""A clip's JSON object as text: for people, and for scripts. Pure."""

from __future__ import annotations

import json
from typing import Any

from pipelines.text import on_one_line

_STAGES = ("find", "crop", "score", "total")


def json_text(record: dict[str, Any]) -> str:
    """``record`` as one line of JSON with its line end."""
    return json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n"


def clip_text(record: dict[str, Any]) -> str:
    """What a person reads of a clip's record (schema ``tellframe.clip/1``): several lines, no line end."""
    score = "no score" if record["p_fake"] is None else f"p(fake) {record['p_fake']:.2f}"
    lines = [f"{on_one_line(record['path'])}: {record['verdict']} ({record['reason']}), {score}"]
    fps = f" at {record['fps']:.4g} fps" if record["fps"] else ""
    lost = [f"{record[key]} {key}" for key in ("dropped", "broken", "reconnects") if record[key]]
    lines.append(
        f"  {record['frames']} frames{fps}, {record['duration_s']:.1f} s; {record['frames_scored']} scored"
        + "".join(f"; {what}" for what in lost)
        + ("" if record["complete"] else "; cut short")
    )
    lines += [_face_line(face) for face in record["faces"]]
    if record["segments"]:
        spans = ", ".join(f"{s['start_s']:.1f}-{s['end_s']:.1f} s" for s in record["segments"])
        lines.append(f"  suspicious: {spans}")
    return "\n".join(lines + _latency_lines(record))


def _face_line(face: dict[str, Any]) -> str:
    score = "" if face["p_fake"] is None else f", p(fake) {face['p_fake']:.2f}"
    span = f"{face['first_s']:.1f}-{face['last_s']:.1f} s"
    return f"  face {face['track']}: {face['verdict']} ({face['reason']}){score}, {face['frames']} frames, {span}"


def _latency_lines(record: dict[str, Any]) -> list[str]:
    names = list(record["latency_ms"]["total"])
    lines = ["  latency ms " + "".join(f"{name:>8}" for name in names)]
    for stage in _STAGES:
        values = record["latency_ms"][stage].values()
        lines.append(f"  {stage:<11}" + "".join(f"{'-' if v is None else f'{v:.1f}':>8}" for v in values))
    budget = record["budget"]
    kept = "met" if budget["met"] else "NOT met"
    lines.append(f"  budget {budget['period_ms']:.1f} ms: {kept}, {budget['over']} of {record['frames']} frames over")
    return lines + _pace_lines(record)


def _pace_lines(record: dict[str, Any]) -> list[str]:
    """What the governor did, if it did anything."""
    pace = record["pace"]
    if not pace["steps"]:
        return []
    lines = [
        f"  governor: {pace['steps']} changes of pace; at the least, faces looked for in one frame of "
        f"{pace['find_every']} and scored in one of {pace['score_every']}"
    ]
    if len(record["models"]) > 1:
        used = ", ".join(f"{model['name']} for {model['frames']} frames" for model in record["models"])
        lines.append(f"  models: {used}")
    return lines
