"""A clip's record (schema ``tellframe.clip/1``) -> what the page shows. Pure."""

from __future__ import annotations

from typing import Any

_SENTENCES = {
    "FAKE": "This video shows signs of a manipulated face",
    "REAL": "No sign of manipulation was found in this video",
    "UNSURE": "This video cannot be judged with confidence",
    "NO_FACE": "There is no face to judge in this video",
}
LIMITS = (
    "A score is evidence, not proof. This detector errs in both directions, most of all on kinds of manipulation it "
    "never saw, on strong compression, and on small, dark or blurred faces."
)


def verdict_markdown(record: dict[str, Any]) -> str:
    """The verdict in a sentence, with its reason and the stretches that drew suspicion."""
    score = "" if record["p_fake"] is None else f", p(fake) = {record['p_fake']:.2f}"
    lines = [f"## {record['verdict']}", f"{_SENTENCES[record['verdict']]} ({record['reason']}{score})."]
    if record["segments"]:
        spans = ", ".join(f"{s['start_s']:.1f}-{s['end_s']:.1f} s" for s in record["segments"])
        lines.append(f"Suspicious: {spans}.")
    budget, p95 = record["budget"], record["latency_ms"]["total"]["p95"]
    kept = "inside" if budget["met"] else "over"
    lines.append(f"{record['frames']} frames; 95 % judged within {p95:.1f} ms, {kept} {budget['period_ms']:.1f} ms.")
    return "\n\n".join([*lines, LIMITS])


def face_rows(record: dict[str, Any]) -> list[list[Any]]:
    """One row a face: track, verdict, reason, p(fake), frames, first and last second."""
    keys = ("track", "verdict", "reason", "p_fake", "frames", "first_s", "last_s")
    return [["" if face[key] is None else face[key] for key in keys] for face in record["faces"]]
