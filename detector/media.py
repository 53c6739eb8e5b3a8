"""Which files hold pictures, by their names."""

from __future__ import annotations

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".flv", ".f4v", ".wmv",
    ".asf", ".3gp", ".3g2", ".ogv", ".vob", ".mxf", ".gif", ".y4m", ".mjpeg", ".mjpg", ".h264", ".264", ".h265",
    ".265", ".hevc", ".ivf", ".dv", ".rm", ".rmvb",
})
"""Files that count as videos where nobody named them one by one."""

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".jp2",
})
"""Files that are read as still images."""
# fmt: on
