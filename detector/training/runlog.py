"""The log of a training run: a CSV that grows, and a plot of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detector.training.pairs import KINDS
from detector.training.validation import Score
from detector.types import OutputError

_MEASURED = ("loss", "accuracy", "accuracy_real", *(f"accuracy_{kind}" for kind in KINDS), "gradient_norm")


class RunLog:
    """Gathers what every step measured, writes means.

    Args:
        folder: gets ``recipe.json``, ``log.csv``, ``validation.csv`` and ``log.png``.
        recipe: as plain values.
        sets: names of the validation sets.
        step: the run goes on after this one: later rows, of steps that will be done again, are dropped.

    Raises:
        OutputError: a file cannot be written.
    """

    def __init__(self, folder: Path, recipe: Mapping[str, Any], sets: Sequence[str], *, step: int) -> None:
        self._folder, self._sets = folder, list(sets)
        self._gathered: dict[str, list[float]] = {}
        self._last: dict[str, float] = {}
        self._begin("log.csv", ["step", "learning_rate", "seconds", *_MEASURED], step)
        self._begin("validation.csv", ["step", "set", "auc", "real_mean", "fake_mean"], step)
        path = folder / "recipe.json"
        with _writing(path):
            path.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")

    def add(self, measured: Mapping[str, float]) -> None:
        """What one step measured."""
        for name, value in measured.items():
            self._gathered.setdefault(name, []).append(value)

    def write(self, step: int, learning_rate: float, seconds: float) -> None:
        """A row with the means since the last; ``seconds`` of computing so far."""
        self._last = {name: sum(values) / len(values) for name, values in self._gathered.items()}
        self._gathered = {}
        row = [f"{self._last[name]:.5g}" if name in self._last else "" for name in _MEASURED]
        self._append("log.csv", [step, f"{learning_rate:.4g}", f"{seconds:.1f}", *row])

    def validated(self, step: int, scores: Sequence[Score]) -> None:
        """A look at the validation sets."""
        for name, score in zip(self._sets, scores, strict=True):
            values = (f"{value:.5f}" for value in (score.auc, score.real_mean, score.fake_mean))
            self._append("validation.csv", [step, name, *values])

    def line(self) -> str:
        """The last means in a few words."""
        return ", ".join(
            f"{name} {self._last[name]:.3f}" for name in ("loss", "accuracy", "accuracy_real") if name in self._last
        )

    def plot(self) -> None:
        """Draws the log so far: loss, accuracy by kind of fake, validation."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        rows = _read(self._folder / "log.csv")
        looks = _read(self._folder / "validation.csv")
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
        _curve(left, rows, "loss", "loss")
        for name in ("accuracy_real", *(f"accuracy_{kind}" for kind in KINDS)):
            _curve(middle, rows, name, name.removeprefix("accuracy_"))
        for name in self._sets:
            chosen = [look for look in looks if look["set"] == name]
            _curve(right, chosen, "auc", f"{name}: AUC", marker="o")
            _curve(right, chosen, "real_mean", f"{name}: mean p(fake) of real", linestyle="--")
        for axes, title in ((left, "Training loss"), (middle, "Training accuracy"), (right, "Validation")):
            axes.set(title=title, xlabel="step")
            axes.grid(alpha=0.3)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize="small")
        figure.savefig(self._folder / "log.png", dpi=110)
        plt.close(figure)

    def _begin(self, name: str, columns: Sequence[str], step: int) -> None:
        """A file with its header, and the rows of an earlier run up to ``step``."""
        path = self._folder / name
        rows = _read(path) if step and path.exists() else []
        with _writing(path), path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(row for row in rows if int(row["step"]) <= step)

    def _append(self, name: str, row: Sequence[object]) -> None:
        path = self._folder / name
        with _writing(path), path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(row)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Says which file could not be written."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _curve(axes: Any, rows: Sequence[Mapping[str, str]], name: str, label: str, **style: str) -> None:
    points = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
    if points:
        axes.plot(*zip(*points, strict=True), label=label, **style)
