"""Makes the clips that tests read: small, with a picture that is known pixel by pixel up to the codec's loss."""

from fractions import Fraction

import av
import numpy as np

SIZE_WH = (64, 48)
RATE = 30
WHITE, GREEN, RED, BLUE = (255, 255, 255), (0, 200, 0), (0, 0, 200), (200, 0, 0)  # BGR
QUADRANTS = {"top left": WHITE, "top right": GREEN, "bottom left": RED, "bottom right": BLUE}
STEP = 12  # grey levels between the marks of neighbouring frames


def picture(index, size_wh=SIZE_WH):
    """uint8 (H, W, 3): white and green above red and blue, and a grey mark in the middle that counts frames."""
    width, height = size_wh
    bgr = np.zeros((height, width, 3), np.uint8)
    bgr[: height // 2, : width // 2] = WHITE
    bgr[: height // 2, width // 2 :] = GREEN
    bgr[height // 2 :, : width // 2] = RED
    bgr[height // 2 :, width // 2 :] = BLUE
    bgr[height // 2 - 8 : height // 2 + 8, width // 2 - 8 : width // 2 + 8] = (index * STEP) % 240
    return bgr


def mark(bgr):
    """The number of the frame, read from its mark."""
    height, width = bgr.shape[:2]
    return round(float(bgr[height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4].mean()) / STEP)


def quadrants(bgr):
    """The colour of every corner, by the name of the known colour it is near to."""
    names = {WHITE: "white", GREEN: "green", RED: "red", BLUE: "blue"}
    corners = (bgr[4, 4], bgr[4, -5], bgr[-5, 4], bgr[-5, -5])
    return [names[min(names, key=lambda colour: np.abs(np.int32(colour) - corner).sum())] for corner in corners]


UPRIGHT = ["white", "green", "red", "blue"]


def write_clip(
    path,
    frames=6,
    *,
    size_wh=SIZE_WH,
    codec="libx264",
    codec_options=None,
    container_options=None,
    container_format=None,
    pix_fmt="yuv420p",
    times=None,
    time_base=Fraction(1, RATE),
    rotation=None,
    mirror=False,
    first_index=0,
):
    """A clip of :func:`picture`; ``times`` are the presentation times of its frames in units of ``time_base``."""
    fast = {"preset": "ultrafast"} if codec == "libx264" else {}
    with av.open(path, "w", format=container_format, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=RATE, options=fast | (codec_options or {}))
        stream.width, stream.height = size_wh
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = time_base
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=mirror)
        for i, pts in enumerate(times or range(frames)):
            frame = av.VideoFrame.from_ndarray(picture(first_index + i, size_wh), format="bgr24")
            frame.pts, frame.time_base = pts, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_audio(path, codec="pcm_s16le"):
    """A clip of silence."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
