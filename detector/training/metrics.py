"""How well scores tell fakes from reals: figures with bootstrap intervals, and the points of their plots. numpy only.

Every figure of a draw comes from cumulated weights over one sorted order: resampling changes how often a score counts,
never where it ranks. Ties are exact: thresholds lie between different scores only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.types import BoolArray, IntArray

Scores = NDArray[np.float64]

DRAWS = 2000
BINS = 15
"""Of the calibration error, as in Guo et al., "On calibration of modern neural networks" (ICML 2017)."""
_RATES = np.array([0.01, 0.05])
_TAILS = (2.5, 97.5)  # percent: a 95 % interval
_Z = 1.959964  # the normal quantile that goes with it
_CHUNK = 1 << 18  # weights at a time: a few arrays of 2 MB, whatever the number of draws


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """How well scores tell fakes from reals; all in 0..1.

    Attributes:
        auc: area under the ROC curve: how often a fake scores above a real one, ties counting half.
        average_precision: sum of precision times gain in recall, step by step; what it is by chance is the share of
            fakes.
        eer: the error rate where as many reals are flagged as fakes are missed, on the straight line between the two
            points of the ROC curve around it.
        tpr_at_1_fpr: share of fakes flagged at the best threshold that flags at most 1 % of the reals. With fewer than
            100 reals that is none of them.
        tpr_at_5_fpr: the same for 5 %.
        ece: expected calibration error over 15 bins of equal width (Guo et al. 2017, equation 3, on p(fake) itself: the
            share of fakes in a bin against their mean p). It depends on the share of fakes in the data. Resampling adds
            noise that absolute values do not cancel, so its interval lies high and may lie above the value.
    """

    auc: Estimate
    average_precision: Estimate
    eer: Estimate
    tpr_at_1_fpr: Estimate
    tpr_at_5_fpr: Estimate
    ece: Estimate


@dataclass(frozen=True, slots=True, eq=False)
class Roc:
    """Points of a ROC curve from (0, 0) to (1, 1), float64 (k,) each, one a different score; a threshold is inclusive.

    ``low`` and ``high`` hold the true positive rate at ``grid`` in 95 % of the draws.
    """

    false_positive_rate: Scores
    true_positive_rate: Scores
    threshold: Scores
    grid: Scores
    low: Scores
    high: Scores


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Bins that hold samples, (k,) each: mean p(fake), share of fakes, and how many samples."""

    mean_p: Scores
    fraction_fake: Scores
    count: IntArray


def measure(
    scores: Scores, fake: BoolArray, groups: IntArray | None = None, draws: int = DRAWS, seed: int = 0
) -> Metrics:
    """All figures of ``scores``, each with its 95 % percentile interval of a stratified bootstrap.

    Fakes and reals are resampled apart, so that no draw lacks a class. An interval is about *these* kinds of fakes and
    reals: it says nothing of other generators. Where every draw gives the same (a perfect separation), it has no width.

    Args:
        scores: p(fake), float64 (n,) in 0..1.
        fake: bool (n,).
        groups: int (n,), such as the clip of a frame: samples of one group are drawn together. None: each on its own.
        draws: of the bootstrap, at least 1.
        seed: of the bootstrap.

    Raises:
        ValueError: a score is not finite or not in 0..1, a class has no sample, a group has both, or shapes differ.
    """
    ranked = _rank(scores, fake, groups)
    value = _figures(ranked, np.ones((1, len(ranked.group_fake))))[0]  # (6,)
    drawn = np.concatenate([_figures(ranked, counts) for counts in _resample(ranked, draws, seed)])  # (draws, 6)
    low, high = np.percentile(drawn, _TAILS, axis=0)  # (6,) each
    return Metrics(*(Estimate(*map(float, figure)) for figure in zip(value, low, high, strict=True)))


def roc(scores: Scores, fake: BoolArray, groups: IntArray | None = None, draws: int = DRAWS, seed: int = 0) -> Roc:
    """The ROC curve with its pointwise 95 % band; arguments as for :func:`measure`."""
    ranked = _rank(scores, fake, groups)
    grid = np.linspace(0.0, 1.0, 101)
    fp, tp = _cumulated(ranked, np.ones((1, len(ranked.group_fake))))
    drawn = [_best_tpr(*_cumulated(ranked, counts), grid) for counts in _resample(ranked, draws, seed)]  # (c, 101) each
    low, high = np.percentile(np.concatenate(drawn), _TAILS, axis=0)  # (101,) each
    threshold = np.concatenate([[math.inf], ranked.scores[ranked.ends]])
    return Roc(fp[0] / fp[0, -1], tp[0] / tp[0, -1], threshold, grid, low, high)


def reliability(scores: Scores, fake: BoolArray) -> Reliability:
    """How often what scores p is fake, bin by bin; arguments and errors as for :func:`measure`."""
    _check(scores, fake)
    bins = _bin_of(scores)
    count = np.bincount(bins, minlength=BINS)  # (bins,)
    used = count > 0
    mean_p = np.bincount(bins, scores, BINS)[used] / count[used]
    fraction_fake = np.bincount(bins, fake, BINS)[used] / count[used]
    return Reliability(mean_p, fraction_fake, count[used].astype(np.int64))


def proportion(hits: int, total: int) -> Estimate:
    """``hits`` of ``total`` with a Wilson score interval (Wilson 1927): honest also when there are no hits at all.

    Raises:
        ValueError: ``total`` is below 1, or ``hits`` not in 0..``total``.
    """
    if not 0 <= hits <= total or total < 1:
        raise ValueError(f"hits must be in 0..total and total at least 1, got {hits} of {total}")
    share, weight = hits / total, _Z**2 / total
    middle = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight**2 / 4) / (1 + weight)
    # The exact ends at 0 and 1 are lost to rounding otherwise.
    low, high = (0.0 if hits == 0 else middle - half), (1.0 if hits == total else middle + half)
    return Estimate(share, low, high)


# -------------------------------------------------------------------------------------------------------- one order


@dataclass(frozen=True, slots=True, eq=False)
class _Ranked:
    """Samples from the highest score down, and the groups they are drawn in.

    Attributes:
        scores, fake: (n,).
        group: (n,), which group a sample is in, 0..groups-1.
        ends: (k,), the last sample of every run of equal scores: a threshold may stand behind it only.
        group_fake: bool (groups,).
    """

    scores: Scores
    fake: BoolArray
    group: IntArray
    ends: IntArray
    group_fake: BoolArray


def _rank(scores: Scores, fake: BoolArray, groups: IntArray | None) -> _Ranked:
    _check(scores, fake)
    groups = np.arange(len(scores)) if groups is None else groups
    if groups.shape != scores.shape:
        raise ValueError(f"groups must have the shape of scores, {scores.shape}, got {groups.shape}")
    names, group = np.unique(groups, return_inverse=True)
    group_fake = np.bincount(group, fake) > 0
    mixed = group_fake & (np.bincount(group, ~fake) > 0)
    if mixed.any():
        raise ValueError(f"a group is all fake or all real; group {names[mixed][0]} has both")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    return _Ranked(ranked, fake[order], group[order], ends, group_fake)


def _check(scores: Scores, fake: BoolArray) -> None:
    if scores.ndim != 1 or fake.dtype != np.bool_ or fake.shape != scores.shape:
        shapes = f"{scores.dtype} {scores.shape} and {fake.dtype} {fake.shape}"
        raise ValueError(f"scores must be float64 (n,) and fake bool (n,), got {shapes}")
    lost = int((~np.isfinite(scores)).sum())
    if lost:
        raise ValueError(f"scores must be finite; {lost} of {len(scores)} are not")
    outside = scores[(scores < 0) | (scores > 1)]
    if len(outside):
        raise ValueError(f"scores must be in 0..1; {len(outside)} of {len(scores)} are not, such as {outside[0]:g}")
    for name, count in (("fake", fake.sum()), ("real", (~fake).sum())):
        if count == 0:
            raise ValueError(f"no {name} sample among {len(scores)}; both classes are needed")


def _resample(ranked: _Ranked, draws: int, seed: int) -> Iterator[Scores]:
    """How often each group counts in each draw, (c, groups) at a time; fakes and reals drawn apart."""
    if draws < 1:
        raise ValueError(f"draws is at least 1, got {draws}")
    random = np.random.default_rng(seed)
    chunk = max(1, _CHUNK // len(ranked.scores))
    for begin in range(0, draws, chunk):
        counts = np.zeros((min(chunk, draws - begin), len(ranked.group_fake)))
        for which in (ranked.group_fake, ~ranked.group_fake):
            counts[:, which] = _multinomial(random, len(counts), int(which.sum()))
        yield counts


def _multinomial(random: np.random.Generator, draws: int, groups: int) -> IntArray:
    """``groups`` picks among as many, counted: (draws, groups). Quicker than Generator.multinomial for equal odds."""
    picked = random.integers(0, groups, (draws, groups))
    picked += np.arange(draws)[:, None] * groups
    return np.bincount(picked.ravel(), minlength=draws * groups).reshape(draws, groups)


# ---------------------------------------------------------------------------------------------------------- figures


def _figures(ranked: _Ranked, counts: Scores) -> Scores:
    """The figures of :class:`Metrics` in their order, (c, 6), where every group counts ``counts`` (c, groups) times."""
    fp, tp = _cumulated(ranked, counts)
    fpr, tpr = fp / fp[:, -1:], tp / tp[:, -1:]
    auc = (np.diff(fpr) * (tpr[:, 1:] + tpr[:, :-1]) / 2).sum(axis=1)
    return np.column_stack(
        [auc, _average_precision(fp, tp), _eer(fpr, tpr), _best_tpr(fp, tp, _RATES), _ece(ranked, counts)]
    )


def _cumulated(ranked: _Ranked, counts: Scores) -> tuple[Scores, Scores]:
    """False and true positives at every threshold, from none flagged to all: (c, k + 1) each."""
    weights = counts[:, ranked.group]  # (c, n)
    flagged = np.zeros((len(counts), len(ranked.ends) + 1))
    tp = np.zeros_like(flagged)
    tp[:, 1:] = np.cumsum(weights * ranked.fake, axis=1)[:, ranked.ends]
    flagged[:, 1:] = np.cumsum(weights, axis=1)[:, ranked.ends]
    return flagged - tp, tp


def _average_precision(fp: Scores, tp: Scores) -> Scores:
    flagged = fp + tp
    # Where a draw has nothing above a threshold, recall gains nothing either: any precision will do.
    precision = tp[:, 1:] / np.maximum(flagged[:, 1:], 1)
    found: Scores = (np.diff(tp) * precision).sum(axis=1)
    return found / tp[:, -1]


def _eer(fpr: Scores, tpr: Scores) -> Scores:
    """Where fpr = 1 - tpr, between the last point before and the first at or behind it."""
    excess = fpr + tpr - 1  # (c, k + 1), from -1 up to 1
    behind = (excess >= 0).argmax(axis=1)[:, None]
    before = behind - 1
    left, right = np.take_along_axis(excess, before, 1), np.take_along_axis(excess, behind, 1)
    low, high = np.take_along_axis(fpr, before, 1), np.take_along_axis(fpr, behind, 1)
    eer: Scores = low - left / (right - left) * (high - low)
    return eer[:, 0]


def _best_tpr(fp: Scores, tp: Scores, rates: Scores) -> Scores:
    """The largest true positive rate with a false positive rate of at most each of ``rates``: (c, rates)."""
    best = np.empty((len(fp), len(rates)))
    for i, rate in enumerate(rates):
        allowed = rate * fp[:, -1] + 1e-9  # counts are whole, 0.01 * 300 is not quite 3
        last = (fp <= allowed[:, None]).sum(axis=1, keepdims=True) - 1
        best[:, i] = (np.take_along_axis(tp, last, 1) / tp[:, -1:])[:, 0]
    return best


def _ece(ranked: _Ranked, counts: Scores) -> Scores:
    gap = np.zeros((len(ranked.group_fake), BINS))
    np.add.at(gap, (ranked.group, _bin_of(ranked.scores)), ranked.fake - ranked.scores)
    size = counts @ np.bincount(ranked.group)  # (c,)
    error: Scores = np.abs(counts @ gap).sum(axis=1)  # a bin's share times its gap is its summed gap over n
    return error / size


def _bin_of(scores: Scores) -> IntArray:
    """The bin of each score; a score on an edge is in the bin below it, as in Guo et al."""
    return np.searchsorted(np.arange(1, BINS) / BINS, scores, side="left").astype(np.int64)
