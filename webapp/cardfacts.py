"""What is said of the detector wherever the page or a report says it: the words, and a card's tests. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from detector.quality import MIN_SIDE_PX
from detector.types import Label, Reason
from detector.verdict import MIN_SCORES

WHY_UNSURE: Final = {
    Reason.BETWEEN: "has a score between what is called real and what is called fake",
    Reason.DISAGREE: "has scores that differ too much from frame to frame",
    Reason.TOO_SMALL: f"is smaller than {MIN_SIDE_PX:.0f} pixels",
    Reason.BLURRED: "is too blurred",
    Reason.DARK: "is too dark",
    Reason.TURNED_AWAY: "is turned away",
    Reason.TOO_FEW_FRAMES: f"was seen too briefly: at least {MIN_SCORES} scored frames are needed",
}
"""Of a face; follows "it"."""
HELP: Final = {
    Reason.BETWEEN: "a copy nearer to the original (not re-posted, re-filmed or re-compressed), or a longer one.",
    Reason.DISAGREE: "judging stretches by themselves: cut the video where the curve jumps or the scene changes.",
    Reason.TOO_SMALL: "a copy of higher resolution, or a stretch in which the face is nearer.",
    Reason.BLURRED: "a sharper or less compressed copy, or a stretch in which the face rests.",
    Reason.DARK: "a stretch in which the face is lit.",
    Reason.TURNED_AWAY: "a stretch in which the face looks towards the camera.",
    Reason.TOO_FEW_FRAMES: "a longer video, or judging every frame of it.",
    Reason.NO_FACE: f"a stretch that shows a face of at least {MIN_SIDE_PX:.0f} pixels, lit and towards the camera.",
}
"""What would lead to a word."""
MISSES: Final = (
    "Kinds of manipulation that it was not tested on may be missed wholly. Wholly generated faces, faces made to "
    "speak (reenactment) and careful swaps in still pictures often are.",
    "Sound is not heard, and what lies outside the face is not seen: a false voice, caption, place or date.",
    "Filters, retouching, heavy make-up, strong compression and re-filming move scores in both directions; "
    "so can people who try to fool it.",
    "Most faces it learnt from are of adults in press photographs. How well it judges others was not measured.",
    "Not for: evidence in court, hiring, moderation without a person, or saying who someone is.",
)
AUC_WORDS: Final = (
    "AUC: how often a fake scores above a real one, with its 95 % interval; 0.5 is a coin, 1 is always. Choices were "
    "made on these clips: fakes from elsewhere will score lower."
)
SAID: Final = (Label.FAKE, Label.UNSURE, Label.REAL)
"""The order in which :func:`said_words` counts them."""
_METHODS: Final = {
    "deepfakes": "DeepFakes (FaceForensics++)",
    "dfd": "DeepFakeDetection (actors)",
    "face2face": "Face2Face (reenactment)",
    "faceswap": "FaceSwap",
    "neuraltextures": "NeuralTextures (reenactment)",
    "sd3": "Stable Diffusion 3 (generated)",
    "stylegan2": "StyleGAN2 (generated)",
    "fake": "swaps in still pictures",
}


def tested(measured: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """The rows of a card's tests: every manipulation method, and the real faces that were given a word.

    What it was tested on, how many fakes and reals, what was said of them, AUC.
    """
    for data in measured.values():
        for what in ("clips", "pictures"):
            level = part(data, what)
            for method in part(level, "by_method"):
                value = part(level["by_method"], method)
                low, high = value.get("auc_interval") or (None, None)
                auc = "-" if low is None else f"{value['auc']:.2f} ({low:.2f}-{high:.2f})"
                number = f"{value.get('fakes', '-')} / {value.get('reals', '-')} {what}"
                yield _METHODS.get(method, method), number, said_words(value.get("fakes_said")), auc
            if level.get("reals_said"):
                yield "real faces", f"{level.get('reals', '-')} {what}", said_words(level["reals_said"]), "-"


@dataclass(frozen=True, slots=True)
class ClipTest:
    """A card's test on clips, fakes against reals.

    Attributes:
        fakes, reals: clips of each.
        auc: how often a fake scores above a real clip, 0..1; with its 95 % interval.
        fakes_said, reals_said: how often each word was said of them.
    """

    fakes: int
    reals: int
    auc: float
    auc_interval: tuple[float, float]
    fakes_said: Mapping[str, int]
    reals_said: Mapping[str, int]


def clip_test(measured: Mapping[str, Any]) -> ClipTest | None:
    """The first test on clips with fakes and reals that a card holds; None when it holds none."""
    for data in measured.values():
        level = part(data, "clips")
        if level.get("auc") is not None and level.get("auc_interval"):
            low, high = level["auc_interval"]
            said = (part(level, "fakes_said"), part(level, "reals_said"))
            return ClipTest(level["fakes"], level["reals"], level["auc"], (low, high), *said)
    return None


def real_rule(measured: Mapping[str, Any]) -> tuple[float, int] | None:
    """What the upper threshold promises: the share of real test clips, 0..1, that are not called fake; of how many.

    None when the card does not say.
    """
    calibration = part(measured, "calibration")
    passes, reals = part(calibration, "rule").get("real_passes"), calibration.get("real_clips")
    if not isinstance(passes, int | float) or not isinstance(reals, int):
        return None
    return float(passes), reals


def said_words(counts: Mapping[str, int] | None) -> str:
    """How often each word of :data:`SAID` was said: ``19 / 14 / 3``, or ``-`` where it was not counted."""
    return " / ".join(str(counts.get(label, 0)) for label in SAID) if counts else "-"


def part(data: Any, key: str) -> Mapping[str, Any]:
    """``data[key]`` where both are JSON objects, else nothing: what a card has measured differs from card to card."""
    found = data.get(key) if isinstance(data, Mapping) else None
    return found if isinstance(found, Mapping) else {}
