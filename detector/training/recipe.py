"""What a training run is asked to do: a TOML file, every key of which has a default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from detector.training.pairs import Mix
from detector.training.tables import check_table, read_toml, take_table
from detector.types import UsageError

OPTIMISERS = ("adamw", "sgd")
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train.

    Attributes:
        start: "imagenet", or the path of a checkpoint (state dict).
        steps: of the optimiser.
        pairs: in one batch of one process; the network sees twice as many crops.
        optimiser: "adamw" or "sgd" (Nesterov, momentum 0.9).
        learning_rate: at its peak; it rises over ``warm_up`` steps and falls to 0 along a cosine.
        weight_decay: on convolutions and the classifier, not on norms and biases.
        sam_rho: radius of sharpness-aware minimisation (Foret et al., ICLR 2021); 0 is off, and twice as fast.
        average: decay of the exponential moving average of the weights, which is what is validated and kept.
        frozen_stages: stages, with the stem, that keep their weights: 0 trains everything, 3 is what two CPU cores
            can do in an hour.
        label_smoothing: targets are this far from 0 and 1.
        validate_every: steps between two looks at the validation data.
        precision: "auto" is bf16 on a GPU that has it, else fp32.
        seed: of everything drawn.
        mix: what pairs are made of.
    """

    start: str = "imagenet"
    steps: int = 20_000
    pairs: int = 32
    optimiser: str = "adamw"
    learning_rate: float = 5e-4
    weight_decay: float = 0.02
    sam_rho: float = 0.05
    average: float = 0.999
    warm_up: int = 500
    frozen_stages: int = 0
    label_smoothing: float = 0.02
    validate_every: int = 500
    precision: str = "auto"
    seed: int = 0
    mix: Mix = field(default_factory=Mix)

    def __post_init__(self) -> None:
        for ok, complaint in (
            (self.seed >= 0, f"seed must not be negative, got {self.seed}"),
            (self.steps >= 1, f"steps must be at least 1, got {self.steps}"),
            (self.pairs >= 1, f"pairs must be at least 1, got {self.pairs}"),
            (self.optimiser in OPTIMISERS, f"optimiser must be one of {', '.join(OPTIMISERS)}, got {self.optimiser!r}"),
            (self.learning_rate > 0, f"learning_rate must be above 0, got {self.learning_rate}"),
            (self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}"),
            (self.sam_rho >= 0, f"sam_rho must not be negative, got {self.sam_rho}"),
            (0 <= self.average < 1, f"average must be in 0..1, got {self.average}"),
            (self.warm_up >= 0, f"warm_up must not be negative, got {self.warm_up}"),
            (0 <= self.frozen_stages <= 6, f"frozen_stages must be 0..6, got {self.frozen_stages}"),
            (0 <= self.label_smoothing < 0.5, f"label_smoothing must be in 0..0.5, got {self.label_smoothing}"),
            (self.validate_every >= 1, f"validate_every must be at least 1, got {self.validate_every}"),
            (self.precision in PRECISIONS, f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}"),
        ):
            if not ok:
                raise UsageError(f"recipe: {complaint}")

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
        mix = take_table(given, "mix", Mix, name)
        check_table(given, cls, name)
        try:
            return cls(**given, mix=Mix(**mix))
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain values; :meth:`of` reads them back."""
        data = asdict(self)
        data["mix"] = data["mix"] | {"margin": list(self.mix.margin)}
        return data
