"""``tellframe calibrate``: clips of known label through the whole pipeline -> temperature and thresholds of a model.

The temperature goes into the model file itself, as one multiplication of the logit: nothing at run time can forget it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from compression.export import save, scale_logit
from detector.card import checksum
from detector.engine import Model
from detector.faces import MediaPipeFaces
from detector.models import StoredModel, find
from detector.scorer import OnnxScorer
from detector.training.calibration import Calibration, Rule, Scores, calibrate
from detector.training.layouts import Kind
from detector.training.perturb import TIERS
from detector.types import InputError, UsageError
from pipelines.carded import write_card
from pipelines.evaluation.command import gather, watching
from pipelines.evaluation.results import NO_FACE_P, Clip
from pipelines.evaluation.run import Options, run_all
from pipelines.memory import share_one_heap

AS_IT_IS = next(name for name, limits in TIERS.items() if limits is None)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked.

    Attributes:
        model: path of an .onnx with its card beside it; both are replaced.
        data: folders of labelled media, or CSV files; their clips are used.
        layout: theirs.
        rule: what the thresholds must keep.
        stride: every n-th frame is judged.
        threads: of the scorer.
        dry: only say what would come out.
    """

    model: str
    data: tuple[str, ...]
    layout: str
    rule: Rule
    stride: int
    threads: int
    dry: bool


def calibrate_command(plan: Plan) -> None:
    """Calibrates, writes model and card, and prints what came out.

    Raises:
        UsageError: ``plan.model`` is not a file, or there are too few clips.
        TellframeError: a file cannot be read or written.
    """
    if not plan.model.endswith(".onnx"):
        raise UsageError(f"calibrate rewrites a model: give the path of an .onnx file, got {plan.model!r}")
    stored = find(Path(plan.model))
    media = [medium for medium in gather(plan.data, plan.layout).media if medium.kind is Kind.VIDEO]
    share_one_heap()
    options = Options(stride=plan.stride, tiers=True, robustness=False)
    with closing(MediaPipeFaces()) as finder, watching(len(media) * options.passes) as (watched, step):
        model = Model(stored.card, OnnxScorer(stored, plan.threads))
        findings = run_all(watched(media), model, finder, options, step)
    real = {tier: _scores(judged.clips, fake=False) for tier, judged in findings.tiers.items()}
    found = calibrate(real, _scores(findings.clean.clips, fake=True), plan.rule, AS_IT_IS)
    print(_words(found))  # noqa: T201
    for reason, names in findings.failures.items():
        print(f"{reason}: {', '.join(names)}")  # noqa: T201
    if not plan.dry:
        _write(stored, found, plan)


def _scores(clips: Sequence[Clip], *, fake: bool) -> Scores:
    """p(fake) of the clips of one class, float64 (n,)."""
    return np.array([NO_FACE_P if c.p_fake is None else c.p_fake for c in clips if c.fake is fake], np.float64)


def _write(stored: StoredModel, found: Calibration, plan: Plan) -> None:
    """The model with its new temperature, then the card that speaks of it."""
    path, card = stored.path, stored.card
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's own
        raise InputError(f"{path}: cannot be read as ONNX ({error})") from error
    save(scale_logit(model, 1 / found.temperature), path)
    measured = {k: v for k, v in asdict(found).items() if k not in ("temperature", "thresholds")}
    note = {
        "what": "clips through the whole pipeline; thresholds keep the rule in the worst quality tier",
        "data": [Path(d).name for d in plan.data],
        "temperature_of_this_run": round(found.temperature, 4),
        "rule": asdict(plan.rule),
        **{k: _rounded(v) for k, v in measured.items()},
    }
    new = replace(
        card,
        sha256=checksum(path),
        bytes=path.stat().st_size,
        thresholds=found.thresholds,
        measured={**card.measured, "calibration": note},
    )
    write_card(stored, new)


def _rounded(value: object) -> object:
    """For a card: four digits are more than any of these figures is sure of."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def _words(found: Calibration) -> str:
    lines = [
        f"{found.real_clips} real clips, {found.fake_clips} fakes",
        f"temperature {found.temperature:.3f}; log-loss {found.log_loss_before:.3f} -> {found.log_loss_after:.3f}",
        f"REAL below {found.thresholds.real_below:.3f}, FAKE above {found.thresholds.fake_above:.3f}, UNSURE between",
        *(
            f"real clips above the FAKE threshold, {tier}: {share:.1%}"
            for tier, share in found.real_called_fake.items()
        ),
        f"fakes below the REAL threshold: {found.fake_called_real:.1%}; UNSURE: {found.unsure:.1%} of all clips",
    ]
    return "\n".join(lines)
