"""The folder of a compression: every phase leaves its results there, whole or not at all, and is not done twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch
from torch import Tensor, nn

from detector.types import ModelError, OutputError

_MADE_OF = "made_of.json"


class Workspace:
    """Files with a note of what each was made of: what is there, of the same making, need not be made again.

    Args:
        folder: made when it is not there.

    Raises:
        OutputError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made: {error.strerror}; choose another --out") from None

    def path(self, name: str) -> Path:
        """Where the file ``name`` lies, or will."""
        return self.folder / name

    def made_of(self, name: str) -> str | None:
        """What the file ``name`` was made of; None when it is not there, or nobody knows."""
        return self._notes().get(name) if self.path(name).exists() else None

    def text(self, name: str, digest: str) -> str | None:
        """What the file ``name`` says, if it was made of ``digest``."""
        if self.made_of(name) != digest:
            return None
        try:
            return self.path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{self.path(name)}: cannot be read ({error}); remove it to make it again") from error

    def write(self, name: str, content: str | bytes, digest: str | None = None) -> None:
        """Puts ``content`` into the file ``name``; ``digest`` says what it was made of."""
        data = content.encode() if isinstance(content, str) else content
        self._replace(name, lambda file: file.write(data))
        self.note(name, digest)

    def draw(self, name: str, plot: Callable[[Path], None]) -> None:
        """The picture that ``plot`` writes to a path."""
        part = self.path(f".{name}")
        plot(part)
        part.replace(self.path(name))

    def save(self, name: str, data: object) -> None:
        """Torch's file of ``data``; what it was made of stays noted."""
        self._replace(name, lambda file: torch.save(data, file))

    def load(self, name: str) -> Any:
        """What :meth:`save` has put into the file ``name``.

        Raises:
            ModelError: it is damaged.
        """
        path = self.path(name)
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(f"{path}: damaged ({reason}); remove it to begin again") from error

    def note(self, name: str, digest: str | None) -> None:
        """Notes what the file ``name`` was made of."""
        notes = self._notes()
        notes.pop(name, None)
        if digest is not None:
            notes[name] = digest
        text = json.dumps(notes, indent=1) + "\n"
        self._replace(_MADE_OF, lambda file: file.write(text.encode()))

    def _notes(self) -> dict[str, str]:
        try:
            notes = json.loads(self.path(_MADE_OF).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return notes if isinstance(notes, dict) else {}

    def _replace(self, name: str, write: Callable[[IO[bytes]], object]) -> None:
        part = self.path(f".{name}.part")
        try:
            with part.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path(name))
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
            part.unlink(missing_ok=True)
            raise OutputError(f"{self.path(name)}: cannot be written ({str(error).splitlines()[0]})") from error


def digest(*parts: object) -> str:
    """A short name for what something is made of: networks and tensors by their values, all else by its text."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, nn.Module):
            for name, value in part.state_dict().items():
                total.update(name.encode())
                total.update(_bytes(value))
        else:
            total.update(_bytes(part) if isinstance(part, Tensor) else repr(part).encode())
        total.update(b"\0")
    return total.hexdigest()[:32]


def _bytes(value: Tensor) -> bytes:
    return bytes(value.detach().cpu().contiguous().numpy().tobytes())
