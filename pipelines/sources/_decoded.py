"""What sources that are decoded from front to end share: files and byte streams."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain

from detector.types import Frame, InputError, NothingToAnalyseError
from pipelines.sources._base import Source
from pipelines.sources._decoder import Decoder, Picture, UnreadableError


class DecodedSource(Source):
    """A source whose ``_open`` makes a decoder and hands it to :meth:`_begin`."""

    _decoder: Decoder | None = None
    _pictures: Iterator[Picture | None] = iter(())
    _has_clock = True

    def _begin(self, decoder: Decoder) -> None:
        """Decodes the first picture, so that what cannot be decoded fails on opening, and completes ``info``.

        Raises:
            UnreadableError: it cannot be read.
            NothingToAnalyseError: it can, and no frame can be decoded.
        """
        self._decoder = decoder
        if self.live:
            decoder.hurry()
        pictures = decoder.pictures(self.counts, tolerant=True)
        first = next((picture for picture in pictures if picture or self._stopped.is_set()), None)
        if first is None:
            raise NothingToAnalyseError(f"{self.info.name}: no frame of its video can be decoded; check that it plays")
        self.info = decoder.describe(self.info.name, (first.bgr.shape[1], first.bgr.shape[0]))
        self._timeline.set_rate(self.info.fps)
        self._has_clock = not self.live or decoder.has_clock
        self._pictures = chain([first], pictures)

    def _frames(self) -> Iterator[Frame]:
        try:
            for picture in self._pictures:
                if self._stopped.is_set():
                    return
                if picture is not None:
                    stamp_ns = picture.stamp_ns if self._has_clock else time.monotonic_ns()
                    yield self._timeline.frame(picture.bgr, stamp_ns)
        except UnreadableError as error:
            raise InputError(f"{self.info.name}: cannot be read on: {error}; check where it comes from") from None

    def _close(self) -> None:
        self._pictures = iter(())
        if self._decoder is not None:
            self._decoder.close()
