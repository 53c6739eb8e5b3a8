"""What training reads: a face with its surroundings, and the shards it is kept in.

A shard is a plain tar in WebDataset's form (``tar tf`` lists it): for every sample ``KEY.png`` (lossless, so that what
was cut from a video keeps exactly the traces of the video's own compression), ``KEY.landmarks.npy`` and ``KEY.json``.
A few large files read fast from any disk, and any worker reads any sample by its offset.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from detector.training.landmarks import POINTS
from detector.types import Float32Array, InputError, NothingToAnalyseError, OutputError, UInt8Array

CONTEXT = 1.9
"""Side of a stored region over the longer side of the face: room for any crop margin and shift of training."""
_PARTS = (".png", ".landmarks.npy", ".json")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a sample comes from.

    Attributes:
        medium: name of the picture or clip in its data set.
        frame: index in the clip; 0 for a picture.
        fake: the label.
        method: "real", or the manipulation.
        source: the data set.
        identities: who is in it, sorted.
    """

    medium: str
    frame: int
    fake: bool
    method: str
    source: str
    identities: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class FaceSample:
    """A face and its surroundings.

    Attributes:
        rgb: uint8 (h, w, 3): the part of the picture around the face, in the picture's own pixels.
        xyxy: float32 (4,), the landmark box as the run-time finder gives it, in pixels of ``rgb``.
        points: float32 (468, 2), the face mesh, in pixels of ``rgb``.
        origin: where it comes from.
    """

    rgb: UInt8Array
    xyxy: Float32Array
    points: Float32Array
    origin: Origin

    def __post_init__(self) -> None:
        if self.rgb.dtype != np.uint8 or self.rgb.ndim != 3 or self.rgb.shape[2] != 3 or self.rgb.size == 0:
            raise ValueError(f"rgb must be uint8 (h, w, 3) and not empty, got {self.rgb.dtype} {self.rgb.shape}")
        for name, array, shape in (("xyxy", self.xyxy, (4,)), ("points", self.points, (POINTS, 2))):
            if array.dtype != np.float32 or array.shape != shape:
                raise ValueError(f"{name} must be float32 {shape}, got {array.dtype} {array.shape}")


def cut_region(bgr: UInt8Array, xyxy: Float32Array) -> tuple[UInt8Array, Float32Array]:
    """The region around a face that a sample keeps: uint8 RGB (h, w, 3), and the box (4,) in it.

    Its corner lies on even pixels and it ends early only where the picture ends, so :func:`detector.crop.crop_faces`
    cuts the same pixels from it as from the whole picture, for any square that it holds.

    Args:
        bgr: uint8 (H, W, 3).
        xyxy: float32 (4,), landmark box in pixels of ``bgr``.
    """
    height, width = bgr.shape[:2]
    half = CONTEXT / 2 * float(max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1])) + 2
    x, y = float(xyxy[0] + xyxy[2]) / 2, float(xyxy[1] + xyxy[3]) / 2
    left, top = (min(max(int(low), 0), end - 1) // 2 * 2 for low, end in ((x - half, width), (y - half, height)))
    right, bottom = max(int(x + half) + 1, left + 1), max(int(y + half) + 1, top + 1)
    region = cv2.cvtColor(bgr[top:bottom, left:right], cv2.COLOR_BGR2RGB)
    return cast(UInt8Array, region), xyxy - np.array([left, top, left, top], np.float32)


# --------------------------------------------------------------------------------------------------- shards


def write_shard(path: Path, samples: Iterable[FaceSample]) -> int:
    """Writes ``samples`` to the tar at ``path``, whole or not at all; how many there were.

    Raises:
        OutputError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            count = 0
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for count, sample in enumerate(samples, 1):
                    for suffix, data in zip(_PARTS, _encode(sample), strict=True):
                        member = tarfile.TarInfo(f"{count - 1:06d}{suffix}")
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        finally:
            Path(file.name).unlink(missing_ok=True)
    return count


def _encode(sample: FaceSample) -> tuple[bytes, bytes, bytes]:
    bgr = cv2.cvtColor(sample.rgb, cv2.COLOR_RGB2BGR)
    _, png = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    points = io.BytesIO()
    np.save(points, sample.points)
    facts = asdict(sample.origin) | {"xyxy": [float(side) for side in sample.xyxy]}
    return png.tobytes(), points.getvalue(), json.dumps(facts).encode()


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where the parts of one sample lie: file, and (offset, bytes) of each part."""

    shard: Path
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Damage:
    """A shard that could not be read to its end: what of it was lost, in words."""

    shard: Path
    reason: str


class SampleStore(Sequence[FaceSample]):
    """The samples of every shard in some folders, read when asked for. Can be sent to worker processes.

    Attributes:
        origins: of every sample, in order.
        damaged: shards that are cut short or unreadable; their whole samples are in.

    Args:
        folders: every ``*.tar`` in each is a shard.

    Raises:
        InputError: a folder does not exist.
        NothingToAnalyseError: there is not one whole sample.
    """

    def __init__(self, *folders: Path) -> None:
        self._entries: list[_Entry] = []
        self.origins: list[Origin] = []
        self.damaged: list[Damage] = []
        for folder in folders:
            if not folder.is_dir():
                raise InputError(f"{folder}: no such directory; make shards with `tellframe prepare`")
            for shard in sorted(folder.glob("*.tar")):
                self._index(shard)
        if not self._entries:
            lost = "".join(f"; {d.shard.name}: {d.reason}" for d in self.damaged[:3])
            raise NothingToAnalyseError(f"{', '.join(map(str, folders))}: no sample in any shard{lost}")

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        with self._reading(index):
            png, points, facts = self._parts(index, 0, 1, 2)
            bgr = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
            if bgr is None:
                raise ValueError("not a picture")
            rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            xyxy = np.array(json.loads(facts)["xyxy"], np.float32)
            return FaceSample(cast(UInt8Array, rgb), xyxy, np.load(io.BytesIO(points)), self.origins[index])

    def points(self, index: int) -> Float32Array:
        """The face mesh of one sample, without its picture: float32 (468, 2), px.

        Raises:
            InputError: it is damaged.
        """
        with self._reading(index):
            return cast(Float32Array, np.load(io.BytesIO(self._parts(index, 1)[0])).reshape(POINTS, 2))

    @contextmanager
    def _reading(self, index: int) -> Iterator[None]:
        """Whatever is wrong with the bytes of a sample is one error that names its shard."""
        try:
            yield
        except (OSError, ValueError, LookupError, TypeError, EOFError, cv2.error):
            shard = self._entries[index].shard
            raise InputError(f"{shard}: sample {index} is damaged; run `tellframe prepare` again") from None

    def _parts(self, index: int, *which: int) -> list[bytes]:
        """Parts of a sample as they are in its shard."""
        entry = self._entries[index]
        with entry.shard.open("rb") as file:
            return [os.pread(file.fileno(), entry.spans[i][1], entry.spans[i][0]) for i in which]

    def _index(self, shard: Path) -> None:
        """Takes in every whole sample of ``shard``."""
        found: dict[str, dict[str, tuple[int, int]]] = {}
        try:
            for member in _members(shard):
                key, dot, suffix = member.name.partition(".")
                found.setdefault(key, {})[dot + suffix] = (member.offset_data, member.size)
        except (tarfile.TarError, OSError) as error:
            self.damaged.append(Damage(shard, f"{error}; run `tellframe prepare` again"))
        with shard.open("rb") as file:
            for key, parts in found.items():
                if set(parts) != set(_PARTS):
                    self.damaged.append(Damage(shard, f"sample {key} lacks parts"))
                    continue
                spans = tuple(parts[suffix] for suffix in _PARTS)
                try:
                    facts = json.loads(os.pread(file.fileno(), spans[2][1], spans[2][0]))
                    del facts["xyxy"]
                    origin = Origin(**(facts | {"identities": tuple(facts["identities"])}))
                except (ValueError, KeyError, TypeError):
                    self.damaged.append(Damage(shard, f"the description of sample {key} is damaged"))
                    continue
                self._entries.append(_Entry(shard, spans))
                self.origins.append(origin)


def _members(shard: Path) -> Iterator[tarfile.TarInfo]:
    """The members of a tar that are there to their last byte.

    Raises:
        tarfile.TarError: after the last whole one, when the file is cut short.
    """
    size = shard.stat().st_size
    with tarfile.open(shard, mode="r:") as tar:
        for member in tar:
            if member.offset_data + member.size > size:
                raise tarfile.ReadError(f"cut short inside {member.name}")
            yield member
        end = tar.offset
    if size < end + tarfile.BLOCKSIZE:  # a whole tar ends in blocks of zeros
        raise tarfile.ReadError("cut short after a whole sample")
    with shard.open("rb") as file:
        file.seek(end)
        if any(file.read()):  # the tar reader takes a damaged header for the end
            raise tarfile.ReadError("damaged after a whole sample")
