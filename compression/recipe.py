"""What a compression is asked to do: a TOML file, every key of which has a default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from compression.fakequant import FLOAT, LEVELS
from compression.joint import JointRecipe
from detector.training.pairs import Mix
from detector.training.tables import check_table, read_toml, take_table
from detector.types import UsageError

FASTER = 2.6
"""What is asked for when no bound is named: so many times faster than the dense network at the same input size."""
DENSE_MODEL = "efficientnet_lite0_256"
_BITS = (FLOAT, *sorted(LEVELS, reverse=True))


@dataclass(frozen=True, slots=True)
class Targets:
    """What the compressed network must keep; None where anything goes. Latencies are medians, one thread, batch 1.

    Attributes:
        latency_ms: of the network on this device.
        frame_ms: of a whole frame on this device, in 95 % of the frames; 33 and 16 mean 33.3 and 16.7 ms.
        faster: times faster than the dense float network at the same input size, above 1.
        bytes: of the network's weights.
        share: the same as a share of the dense network's float32 weights, in 0..1.
        max_drop: what the finished network's score may lose, in its unit (1 is 100 points of AUC).
    """

    latency_ms: float | None = None
    frame_ms: float | None = None
    faster: float | None = None
    bytes: float | None = None
    share: float | None = None
    max_drop: float = 0.01

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not value > 0:
                raise UsageError(f"bounds: {name} must be above 0, got {value:g}")
        if self.faster is not None and self.faster <= 1:
            raise UsageError(f"bounds: faster is how many times faster, above 1, got {self.faster:g}")
        if self.share is not None and self.share > 1:
            raise UsageError(f"bounds: share is a share of the dense network's bytes, in 0..1, got {self.share:g}")

    @property
    def asked_faster(self) -> float | None:
        """``faster``, or :data:`FASTER` when no bound at all is named."""
        named = self.latency_ms, self.frame_ms, self.faster, self.bytes, self.share
        return FASTER if all(bound is None for bound in named) else self.faster


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to compress any network.

    Attributes:
        ratios: shares of a group's channels that may be kept, each in 0..1; dropping a residual block comes on top.
        bits: of weights that may be chosen: 32, 8, 6, 4. 6 and 4 buy bytes on disk, no speed.
        sensitivity_images: inputs that the sensitivity is measured on.
        calibration_images: inputs that the first ranges of activations are taken from.
        rounds: of building, measuring, correcting the latency table and solving again.
        swaps: real evaluations of neighbouring policies after that; 0 is none.
        runs: timed runs of a network in every measurement.
        bounds: what must be kept.
        joint: how the weights adapt.
    """

    ratios: tuple[float, ...] = (0.75, 0.625, 0.5, 0.375, 0.25)
    bits: tuple[int, ...] = (8, 6, 4)
    sensitivity_images: int = 512
    calibration_images: int = 128
    rounds: int = 3
    swaps: int = 0
    runs: int = 120
    bounds: Targets = field(default_factory=Targets)
    joint: JointRecipe = field(default_factory=JointRecipe)

    def __post_init__(self) -> None:
        self._check(
            (bool(self.ratios) and all(0 < r < 1 for r in self.ratios), f"ratios must be in 0..1, got {self.ratios}"),
            (
                bool(self.bits) and set(self.bits) <= set(_BITS),
                f"bits must be among {', '.join(map(str, _BITS))}, got {list(self.bits)}",
            ),
            (self.sensitivity_images >= 1, f"sensitivity_images must be at least 1, got {self.sensitivity_images}"),
            (self.calibration_images >= 1, f"calibration_images must be at least 1, got {self.calibration_images}"),
            (self.rounds >= 1, f"rounds must be at least 1, got {self.rounds}"),
            (self.swaps >= 0, f"swaps must not be negative, got {self.swaps}"),
            (self.runs >= 30, f"runs must be at least 30, got {self.runs}"),
        )

    @staticmethod
    def _check(*rules: tuple[bool, str]) -> None:
        for ok, complaint in rules:
            if not ok:
                raise UsageError(complaint)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The recipe in a TOML file.

        Raises:
            UsageError: it is missing, not TOML, has unknown keys, or a value makes no sense.
        """
        return cls.of(read_toml(path), str(path))

    @classmethod
    def of(cls, data: Mapping[str, Any], name: str = "recipe") -> Self:
        """The recipe that ``data`` describes; the errors are those of :meth:`read`."""
        given = dict(data)
        tables = {key: (kind, take_table(given, key, kind, name)) for key, kind in cls._tables().items()}
        check_table(given, cls, name)
        try:
            values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
            return cls(**values | {key: kind(**table) for key, (kind, table) in tables.items()})
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None

    @classmethod
    def _tables(cls) -> dict[str, Any]:
        return {"bounds": Targets, "joint": JointRecipe}

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DetectorRecipe(Recipe):
    """How to compress the detector; first what :class:`Recipe` has.

    Attributes:
        start: the dense network: a checkpoint (.pt), a float .onnx of ours, or the name of a shipped one.
        teacher_size: side of the crops that the dense network is asked about, px.
        sizes: sides of the crops that the compressed one may take, px; sensitivity is measured at the first.
        pool_pairs: pairs of a real face and a fake that are made, once.
        pairs: in a batch; the network sees twice as many crops.
        seed: of the pairs.
        mix: what pairs are made of; its size does not count.
    """

    start: str = DENSE_MODEL
    teacher_size: int = 256
    sizes: tuple[int, ...] = (224,)
    pool_pairs: int = 9000
    pairs: int = 16
    seed: int = 0
    mix: Mix = field(default_factory=Mix)

    def __post_init__(self) -> None:
        Recipe.__post_init__(self)
        for size in (self.teacher_size, *self.sizes):
            self._check((32 <= size <= 1024 and size % 32 == 0, f"sizes are multiples of 32, 32..1024 px, got {size}"))
        self._check(
            (bool(self.sizes), "sizes must name at least one"),
            (len(set(self.sizes)) == len(self.sizes), f"sizes must differ, got {list(self.sizes)}"),
            (self.pairs >= 1, f"pairs must be at least 1, got {self.pairs}"),
            (
                self.pool_pairs >= self.pairs,
                f"pool_pairs must be at least a batch of {self.pairs}, got {self.pool_pairs}",
            ),
            (self.seed >= 0, f"seed must not be negative, got {self.seed}"),
        )

    @classmethod
    def _tables(cls) -> dict[str, Any]:
        return {"bounds": Targets, "joint": JointRecipe, "mix": Mix}
