"""One scale for the scores of several models, so that a face keeps its word when the model changes. Pure.

Every model has thresholds of its own, all found by one rule: the share of real clips that must pass, the share of fakes
that must be caught. So a threshold of one model means what the same threshold of another means, and that is what the
scale is pinned to. In between, log-odds are interpolated; outside, they are shifted.
"""

from __future__ import annotations

import math

from detector.card import Thresholds

_EDGE = 1e-6  # a float32 sigmoid reaches 0 and 1, whose log-odds do not exist


def onto_scale(p_fake: float, thresholds: Thresholds, scale: Thresholds) -> float:
    """``p_fake`` (0..1) of a model with ``thresholds``, as a model with the thresholds ``scale`` would have said it.

    Monotone; both thresholds go onto their counterparts, so that the word for a score does not change.
    """
    if thresholds == scale:
        return p_fake
    x = _log_odds(p_fake)
    low, high = _log_odds(thresholds.real_below), _log_odds(thresholds.fake_above)
    to_low, to_high = _log_odds(scale.real_below), _log_odds(scale.fake_above)
    if x <= low:
        x += to_low - low
    elif x >= high:
        x += to_high - high
    else:
        x = to_low + (x - low) / (high - low) * (to_high - to_low)
    return 1 / (1 + math.exp(-x))


def _log_odds(p: float) -> float:
    inside = min(max(p, _EDGE), 1 - _EDGE)
    return math.log(inside / (1 - inside))
