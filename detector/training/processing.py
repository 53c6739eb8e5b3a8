"""What cameras and platforms do to a picture, the same to both halves of a pair.

A :class:`Processing` is drawn once and applied to the real and to the fake alike, so that ordinary processing is
evidence of nothing: low light, sensor noise, a beauty filter, blur, resizing, and real re-encoding by JPEG, H.264 or
H.265 at the size that the face has in its video.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, cast

import cv2
import numpy as np

from detector.training.codec import Codec, jpeg, reencode
from detector.types import Float32Array, UInt8Array

Rng = np.random.Generator

_CLIP_FRAMES = 3
"""Frames of the little clip that a still is encoded as: enough for motion compensation to leave its traces."""


@dataclass(frozen=True, slots=True)
class Processing:
    """One way through camera and platform. 0, 1 or None, whichever means nothing, skips a step.

    Attributes:
        gain: light: pixel values times this, in linear light.
        gamma: tone curve of the camera.
        saturation, tint_rgb: colour: distance from grey times this; factors of the channels.
        smooth: a beauty filter: strength of edge-preserving smoothing, 0..1.
        motion_px, motion_angle: blur of a moving camera, px and radians.
        blur: standard deviation of the lens's blur, px.
        noise, noise_seed: standard deviation of sensor noise, in pixel values; its draw.
        grain_px: size of the noise's grains: 1 is fresh noise, 2 noise that was scaled up.
        scale: of the picture on its way; below 1 it loses detail.
        codec, quality: H.264 or H.265 with a constant rate factor.
        drift_xy: movement between two frames of the clip that is encoded, px.
        jpeg_quality: of a JPEG, before a video codec or instead of it.
        sharpen: amount of an unsharp mask at the end.
    """

    gain: float = 1.0
    gamma: float = 1.0
    saturation: float = 1.0
    tint_rgb: tuple[float, float, float] = (1.0, 1.0, 1.0)
    smooth: float = 0.0
    motion_px: float = 0.0
    motion_angle: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    noise_seed: int = 0
    grain_px: int = 1
    scale: float = 1.0
    codec: Codec | None = None
    quality: int = 23
    drift_xy: tuple[float, float] = (0.0, 0.0)
    jpeg_quality: int | None = None
    sharpen: float = 0.0

    @classmethod
    def draw(cls, rng: Rng, strength: float = 1.0) -> Self:
        """One of the ways that video takes; ``strength`` 0..1 scales how often and how far each step goes."""

        def sometimes(odds: float) -> bool:
            return bool(rng.random() < odds * strength)

        drawn: dict[str, object] = {}
        if sometimes(0.35):
            dark = sometimes(0.35)
            drawn |= {"gain": float(rng.uniform(0.15, 0.6) if dark else rng.uniform(0.7, 1.3))}
            drawn |= {"noise": float(rng.uniform(2, 8))} if dark else {}
        if sometimes(0.3):
            drawn |= {"gamma": float(rng.uniform(0.75, 1.3)), "saturation": float(rng.uniform(0.5, 1.4))}
        if sometimes(0.25):
            drawn |= {"tint_rgb": tuple(float(f) for f in rng.uniform(0.88, 1.1, 3))}
        if sometimes(0.12):
            drawn |= {"smooth": float(rng.uniform(0.3, 1.0))}
        if sometimes(0.12):
            drawn |= {"motion_px": float(rng.uniform(2, 7)), "motion_angle": float(rng.uniform(0, np.pi))}
        if sometimes(0.25):
            drawn |= {"blur": float(rng.uniform(0.3, 1.6))}
        if sometimes(0.25):
            drawn |= {"noise": float(rng.uniform(1, 7)), "grain_px": int(rng.integers(1, 3))}
        if sometimes(0.45):
            drawn |= {"scale": float(rng.uniform(0.35, 0.95))}
        way = rng.random()
        if way < 0.5 * strength:
            codec = Codec.H264 if rng.random() < 0.9 else Codec.H265
            drawn |= {"codec": codec, "quality": int(rng.integers(18, 36))}
            drawn |= {"drift_xy": tuple(float(d) for d in rng.normal(0, 0.7, 2))}
        if 0.4 * strength < way < 0.8 * strength:  # some go through both
            drawn |= {"jpeg_quality": int(rng.integers(35, 96))}
        if sometimes(0.1):
            drawn |= {"sharpen": float(rng.uniform(0.2, 1.0))}
        return cls(noise_seed=int(rng.integers(2**32)), **drawn)  # type: ignore[arg-type]

    def apply(self, rgb: UInt8Array) -> UInt8Array:
        """uint8 RGB (h, w, 3) after all steps, of the same shape; the input is not changed."""
        rgb = self._light(rgb)
        if self.smooth:
            smooth = cv2.bilateralFilter(rgb, 5, 20 + 40 * self.smooth, 3)
            rgb = cast(UInt8Array, cv2.addWeighted(smooth, self.smooth, rgb, 1 - self.smooth, 0))
        if self.motion_px:
            rgb = cast(UInt8Array, cv2.filter2D(rgb, -1, _streak(self.motion_px, self.motion_angle)))
        if self.blur:
            rgb = cast(UInt8Array, cv2.GaussianBlur(rgb, (0, 0), self.blur))
        if self.noise:
            rgb = self._grain(rgb)
        return self._transport(rgb)

    def _light(self, rgb: UInt8Array) -> UInt8Array:
        """Light and colour: a table for each channel, then the distance from grey."""
        if (self.gain, self.gamma) != (1.0, 1.0) or self.tint_rgb != (1.0, 1.0, 1.0):
            values = np.linspace(0, 1, 256)[:, None]  # (256, 1)
            linear = values**2.2 * self.gain * np.array(self.tint_rgb)
            table = 255 * linear.clip(0, 1) ** (self.gamma / 2.2)  # (256, 3)
            rgb = cast(UInt8Array, cv2.LUT(rgb, np.rint(table).astype(np.uint8)[:, None, :]))
        if self.saturation != 1.0:
            grey = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            rgb = cast(UInt8Array, cv2.addWeighted(rgb, self.saturation, grey, 1 - self.saturation, 0))
        return rgb

    def _grain(self, rgb: UInt8Array) -> UInt8Array:
        height, width = rgb.shape[:2]
        size_hw = (-(-height // self.grain_px), -(-width // self.grain_px))
        noise: Float32Array = np.random.default_rng(self.noise_seed).standard_normal((*size_hw, 3), np.float32)
        if self.grain_px > 1:
            noise = cast(Float32Array, cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR))
        return np.rint(rgb + self.noise * noise).clip(0, 255).astype(np.uint8)

    def _transport(self, rgb: UInt8Array) -> UInt8Array:
        """Resizing and re-encoding."""
        height, width = rgb.shape[:2]
        if self.scale != 1.0:
            small = (max(16, round(width * self.scale)), max(16, round(height * self.scale)))
            rgb = cast(UInt8Array, cv2.resize(rgb, small, interpolation=cv2.INTER_AREA))
        if self.jpeg_quality is not None:
            rgb = jpeg(rgb, self.jpeg_quality)
        if self.codec is not None:
            # x265 takes 40 ms for a small key frame with x264's preset; its ultrafast is as good as x264's medium.
            preset = "veryfast" if self.codec is Codec.H264 else "ultrafast"
            rgb = reencode(_clip(rgb, self.drift_xy), self.codec, self.quality, preset)[-1]
        if self.sharpen:
            blurred = cv2.GaussianBlur(rgb, (0, 0), 1.2)
            rgb = cast(UInt8Array, cv2.addWeighted(rgb, 1 + self.sharpen, blurred, -self.sharpen, 0))
        if rgb.shape[:2] != (height, width):
            rgb = cast(UInt8Array, cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR))
        return rgb


def _streak(length_px: float, angle: float) -> Float32Array:
    """The kernel of a straight camera movement, float32 (k, k), summing to 1."""
    reach = int(np.ceil(length_px / 2))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for t in np.linspace(-length_px / 2, length_px / 2, 4 * reach + 1):
        kernel[round(reach + t * np.sin(angle)), round(reach + t * np.cos(angle))] += 1
    return cast(Float32Array, kernel / kernel.sum())


def _clip(rgb: UInt8Array, drift_xy: tuple[float, float]) -> list[UInt8Array]:
    """A still as a clip of a drifting camera whose last frame is the still itself."""
    size_wh = (rgb.shape[1], rgb.shape[0])
    frames = []
    for back in range(_CLIP_FRAMES - 1, 0, -1):
        move = np.array([[1, 0, back * drift_xy[0]], [0, 1, back * drift_xy[1]]], np.float32)
        frames.append(cast(UInt8Array, cv2.warpAffine(rgb, move, size_wh, borderMode=cv2.BORDER_REPLICATE)))
    return [*frames, rgb]
