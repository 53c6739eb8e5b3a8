"""``tellframe calibrate``: clips of known label through the whole pipeline -> temperature and thresholds of a model.

The temperature goes into the model file itself, as one multiplication of the logit: nothing at run time can forget it.
The thresholds are then set on what the model with that temperature says.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from compression.export import scale_logit
from detector.card import ModelCard, Thresholds
from detector.engine import Model
from detector.faces import MediaPipeFaces
from detector.models import StoredModel, find
from detector.scorer import OnnxScorer
from detector.training.calibration import Calibration, Rule, Scores, calibrate, clip_temperature
from detector.training.layouts import Kind, Medium
from detector.training.perturb import TIERS
from detector.types import ModelError, NothingToAnalyseError, UsageError
from pipelines.atomic import writable
from pipelines.carded import card_of, card_path, write_model
from pipelines.evaluation.command import gather, watching
from pipelines.evaluation.results import NO_FACE_P, Clip
from pipelines.evaluation.run import Findings, Options, run_all
from pipelines.memory import share_one_heap
from pipelines.text import on_one_line

AS_IT_IS = next(name for name, limits in TIERS.items() if limits is None)
_NEUTRAL = Thresholds(0.5, 0.5)
"""While clips are scored: which face of a clip counts must not hang on thresholds that are about to change."""


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
    content = _read(stored.path)
    scale_logit(content, 1.0)  # refused now, not after the work
    if not plan.dry:
        for path in (stored.path, card_path(stored.path)):
            writable(path)
    found = gather(plan.data, plan.layout)
    media = [medium for medium in found.media if medium.kind is Kind.VIDEO]
    share_one_heap()
    with watching(len(media) * (2 + len(TIERS))) as (watched, step):
        result, model, findings = _calibrate(stored.card, content, plan, lambda: watched(media), step)
    _tell({**found.left_out, **findings.failures}, len(found.media) - len(media))
    print(_words(result))  # noqa: T201
    if not plan.dry:
        data = model.SerializeToString(deterministic=True)
        write_model(stored.path, data, card_of(data, _carded(stored.card, result, plan)))


def _calibrate(
    card: ModelCard,
    content: ModelProto,
    plan: Plan,
    media: Callable[[], Iterator[Medium]],
    step: Callable[[], None],
) -> tuple[Calibration, ModelProto, Findings]:
    """Two passes: the clips as they are give the temperature, the scaled model in every tier gives the thresholds."""
    with closing(MediaPipeFaces()) as finder, tempfile.TemporaryDirectory() as folder:

        def judged(model: ModelProto, *, tiers: bool) -> Findings:
            path = Path(folder) / "model.onnx"
            path.write_bytes(model.SerializeToString())
            neutral = replace(card, thresholds=_NEUTRAL)
            scorer = OnnxScorer(StoredModel(neutral, path), plan.threads)
            options = Options(stride=plan.stride, tiers=tiers, robustness=False)
            return run_all(media(), Model(neutral, scorer), finder, options, step)

        before = judged(content, tiers=False)
        if not before.clean.clips:
            reason = next(iter(before.failures), "they are pictures")
            raise NothingToAnalyseError(f"no clip to calibrate on; the first reason: {reason}")
        fitted = clip_temperature(*(_scores(before.clean.clips, fake=fake) for fake in (False, True)))
        model = scale_logit(content, 1 / fitted.temperature)
        after = judged(model, tiers=True)
    real = {tier: _scores(found.clips, fake=False) for tier, found in after.tiers.items()}
    return calibrate(fitted, real, _scores(after.clean.clips, fake=True), plan.rule, AS_IT_IS), model, after


def _read(path: Path) -> ModelProto:
    """The model at ``path``, for changing it.

    Raises:
        ModelError: it is not ONNX.
    """
    try:
        return onnx.load(path)
    except Exception as error:  # protobuf's own
        raise ModelError(f"{path}: cannot be read as ONNX ({' '.join(str(error).split())})") from error


def _scores(clips: Sequence[Clip], *, fake: bool) -> Scores:
    """p(fake) of the clips of one class, float64 (n,)."""
    return np.array([NO_FACE_P if c.p_fake is None else c.p_fake for c in clips if c.fake is fake], np.float64)


def _carded(card: ModelCard, found: Calibration, plan: Plan) -> ModelCard:
    """The card with thresholds, and a note of how they came about."""
    facts = {key: value for key, value in asdict(found).items() if key not in ("temperature", "thresholds")}
    note = {
        "command": f"tellframe calibrate --stride {plan.stride}",
        "data": [Path(folder).name for folder in plan.data],
        "temperature_of_this_run": found.temperature,
        "rule": asdict(plan.rule),
        **facts,
    }
    return replace(card, thresholds=found.thresholds, measured={**card.measured, "calibration": _rounded(note)})


def _rounded(value: object) -> object:
    """For a card: four digits are more than any of these figures is sure of."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def _tell(trouble: dict[str, tuple[str, ...]], pictures: int) -> None:
    """Says what was not used, with names."""
    if pictures:
        print(f"left out, pictures: {pictures}; clips set thresholds")  # noqa: T201
    for reason, names in trouble.items():
        print(on_one_line(f"left out, {reason}: {len(names)}: {', '.join(names)}"))  # noqa: T201


def _words(found: Calibration) -> str:
    real_below, fake_above = found.thresholds.real_below, found.thresholds.fake_above
    lines = [
        f"{found.real_clips} real clips, {found.fake_clips} fakes",
        f"temperature {found.temperature:.3f}; log-loss {found.log_loss_before:.3f} -> {found.log_loss_after:.3f}",
        f"REAL below {real_below:.3f}, FAKE above {fake_above:.3f}, UNSURE between",
        *(f"real clips above the FAKE threshold, {tier}: {p:.1%}" for tier, p in found.real_called_fake.items()),
        f"fakes below the REAL threshold: {found.fake_called_real:.1%}; UNSURE: {found.unsure:.1%} of all clips",
    ]
    return "\n".join(lines)
