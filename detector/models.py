"""Which models there are, and where: the shipped ones by name, others by path."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from detector.card import ModelCard, read, verify
from detector.types import ModelError

LADDER = ("efficientnet_lite0_256", "efficientnet_lite0_256_int8", "efficientnet_lite0_256_hqp")
"""The shipped models that a governor may choose from, most accurate and most costly first. A new one goes in here."""
DEFAULT_MODEL = "efficientnet_lite0_256_int8"
"""What is used when none is named, and where the governor's ladder then begins: it must be in :data:`LADDER`."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model on disk: what its card says, and the .onnx file that it speaks of."""

    card: ModelCard
    path: Path


def available(folder: Path | None = None) -> list[StoredModel]:
    """The models in ``folder`` (the shipped ones when None), by name; their checksums are not checked.

    Raises:
        ModelError: a card is damaged.
    """
    folder = folder or _shipped()
    cards = [read(path) for path in sorted(folder.glob("*.json"))]
    return [StoredModel(card, folder / card.file) for card in cards]


def find(name_or_path: str | Path, folder: Path | None = None) -> StoredModel:
    """A shipped model by its name, or any model by the path of its .onnx, with its card beside it.

    The file is checked against its card.

    Raises:
        ModelError: there is no such model (the message lists the names there are), or it or its card is damaged.
    """
    folder = folder or _shipped()
    if isinstance(name_or_path, Path) or name_or_path.endswith(".onnx"):
        return _by_path(Path(name_or_path))
    names = [stored.card.name for stored in available(folder)]
    if name_or_path not in names:
        known = ", ".join(names) or f"none in {folder}"
        raise ModelError(f"no model is called {name_or_path!r}; there are: {known}; or give the path of an .onnx file")
    card = verify(folder / f"{name_or_path}.json")
    return StoredModel(card, folder / card.file)


def ladder(names: str | None = None) -> tuple[StoredModel, ...]:
    """The models that a governor may choose from, most accurate first.

    Args:
        names: names or paths as :func:`find` takes them, with commas between them; None for the default model and
            what is below it in :data:`LADDER`.

    Raises:
        ModelError: there is no such model, it is named twice, or it or its card is damaged.
    """
    if names is None:
        return tuple(find(name) for name in LADDER[LADDER.index(DEFAULT_MODEL) :])
    asked = [names] if "," not in names or Path(names).is_file() else [name.strip() for name in names.split(",")]
    stored = tuple(find(name) for name in asked)
    if len({model.path for model in stored}) < len(stored):
        raise ModelError(f"a model is named twice in {names!r}; name each once, the most accurate first")
    return stored


def _by_path(path: Path) -> StoredModel:
    """The model at ``path``."""
    if path.suffix != ".onnx" or not path.is_file():
        raise ModelError(f"no model at {path}; give the path of an .onnx file or the name of a shipped model")
    card_path = path.with_suffix(".json")
    card = verify(card_path)
    if card.file != path.name:
        raise ModelError(f"{card_path} speaks of {card.file}, not of {path.name}; put the right card beside the model")
    return StoredModel(card, path)


def _shipped() -> Path:
    """The folder of the shipped models.

    Raises:
        ModelError: the package is not installed as files (ONNX Runtime reads models from disk).
    """
    folder = files("assets") / "models"
    if not isinstance(folder, Path):
        raise ModelError(f"the models are not in a folder ({folder}); install tellframe unpacked, not as a zip")
    return folder
