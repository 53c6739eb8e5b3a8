"""How often real clips are called FAKE, as they are and after two rounds of what platforms do to them.

    python tests/bench/real_tiers.py --model NAME clips/*.mp4

Tiers: as it is; longer side at most 768 px and JPEG quality 60; at most 512 px and quality 40. Prints the
quantiles of the clips' p(fake) in each tier, and what they would be called. Thresholds are chosen so that at least 95 %
of real clips are not called FAKE in the worst tier.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

import cv2
import numpy as np

from detector.clip import ClipJudge, ClipVerdict
from detector.engine import Detector, Model
from detector.faces import MediaPipeFaces
from detector.models import find
from detector.scorer import OnnxScorer
from detector.types import Frame, TellframeError
from pipelines.sources import VideoFile

TIERS = {"as it is": None, "768 px q60": (768, 60), "512 px q40": (512, 40)}


def degraded(frame: Frame, tier: tuple[int, int] | None) -> Frame:
    """The frame, shrunk to at most ``tier[0]`` px and through a JPEG of quality ``tier[1]``."""
    if tier is None:
        return frame
    side, quality = tier
    scale = side / max(frame.size_wh)
    bgr = frame.bgr if scale >= 1 else cv2.resize(frame.bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return Frame(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), frame.index, frame.pts_ns, frame.captured_ns)


def verdicts(path: str, model: Model, finder: MediaPipeFaces, frames: int) -> Iterator[ClipVerdict]:
    """The verdict of one clip in every tier."""
    with VideoFile(path) as clip:
        pictures = list(islice(clip, frames))
    for tier in TIERS.values():
        finder.restart()
        detector, judge = Detector(finder, model), ClipJudge(model.card.thresholds)
        for frame in pictures:
            judge.add(detector.judge(degraded(frame, tier)))
        yield judge.verdict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--model", required=True)
    parser.add_argument("--frames", type=int, default=60, help="of each clip, from its start")
    given = parser.parse_args()
    stored = find(given.model)
    model = Model(stored.card, OnnxScorer(stored, threads=1))
    said: dict[str, list[ClipVerdict]] = {tier: [] for tier in TIERS}
    with closing(MediaPipeFaces()) as finder:
        for path in given.clips:
            try:
                for tier, verdict in zip(TIERS, verdicts(path, model, finder, given.frames), strict=True):
                    said[tier].append(verdict)
            except TellframeError as error:
                print(f"left out: {error}")
    print(f"{'tier':<12} {'clips':>5} {'p50':>6} {'p80':>6} {'p90':>6} {'p95':>6} {'p99':>6}  verdicts")
    for tier, found in said.items():
        p = [verdict.p_fake for verdict in found if verdict.p_fake is not None]
        quantiles = " ".join(f"{q:6.3f}" for q in np.quantile(p, [0.5, 0.8, 0.9, 0.95, 0.99]))
        print(f"{tier:<12} {len(p):>5} {quantiles}  {dict(Counter(v.label.value for v in found).most_common())}")


if __name__ == "__main__":
    main()
