"""Accuracy over labelled clips: video AUC of ``p_fake`` per manipulation method, and what was said of the real ones.

    tellframe video clips/*/*.mp4 --json results.jsonl
    python tests/bench/clip_accuracy.py --labels clips.csv --results results.jsonl

``clips.csv`` has the columns ``path`` (how the results' paths end), ``label`` (1 fake, 0 real) and ``method``. A clip
without a score counts as 0.5. The interval is a bootstrap over clips (2,000 draws, seeded).
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


def auc(fake: Scores, real: Scores) -> float:
    """Probability that a fake scores above a real one; ties count half. Area under the ROC curve (Mann-Whitney)."""
    above = fake[:, None] > real[None, :]
    equal = fake[:, None] == real[None, :]
    return float((above + 0.5 * equal).mean())


def interval(fake: Scores, real: Scores, draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of :func:`auc`."""
    random = np.random.default_rng(0)
    values = [auc(random.choice(fake, len(fake)), random.choice(real, len(real))) for _ in range(draws)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    given = parser.parse_args()
    results = [json.loads(line) for line in given.results.read_text().splitlines()]
    rows = []  # (method, is fake, p_fake, verdict)
    for row in csv.DictReader(given.labels.open()):
        found = [r for r in results if r["path"].endswith(row["path"])]
        if len(found) != 1:
            raise SystemExit(f"{row['path']}: {len(found)} results, expected one")
        p_fake = 0.5 if found[0]["p_fake"] is None else found[0]["p_fake"]
        rows.append((row["method"], row["label"] == "1", p_fake, found[0]["verdict"]))
    real = np.array([p for _, fake, p, _ in rows if not fake])
    methods = sorted({method for method, fake, _, _ in rows if fake})
    print(f"{'method':<16} {'clips':>5} {'AUC':>6} {'interval':>14}  verdicts")
    for method in (*methods, "all"):
        chosen = [(p, verdict) for name, fake, p, verdict in rows if fake and method in (name, "all")]
        fake = np.array([p for p, _ in chosen])
        low, high = interval(fake, real)
        said = dict(Counter(verdict for _, verdict in chosen).most_common())
        print(f"{method:<16} {len(fake):>5} {auc(fake, real):>6.3f} {low:>6.3f}-{high:.3f}  {said}")
    threshold = np.quantile(real, 0.95)
    every_fake = np.array([p for _, fake, p, _ in rows if fake])
    said = dict(Counter(verdict for _, fake, _, verdict in rows if not fake).most_common())
    print(f"real: {len(real)} clips, {said}; over 0.5: {(real > 0.5).mean():.3f}")
    print(f"TPR at 5 % FPR (threshold {threshold:.3f}): {(every_fake > threshold).mean():.3f}")


if __name__ == "__main__":
    main()
