"""A camera for the browser to believe in."""

import av

from tests.webapp.browser.driver import SAMPLES


def camera_file(path, sample, size=(640, 480)):
    """Browser flags for a camera that shows a sample clip over and over at 30 frames a second, and is allowed at once.

    The middle of the picture is taken in the camera's shape. Raw pictures: Chromium stretches the contrast of Motion
    JPEG.
    """
    width, height = size
    with av.open(str(path), "w", format="yuv4mpegpipe") as out, av.open(str(SAMPLES / sample)) as clip:
        stream = out.add_stream("rawvideo", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in clip.decode(video=0):
            rgb = frame.to_ndarray(format="rgb24")  # (H, W, 3)
            taken = rgb.shape[0] * width // height
            left = (rgb.shape[1] - taken) // 2
            middle = av.VideoFrame.from_ndarray(rgb[:, left : left + taken].copy(), format="rgb24")
            out.mux(stream.encode(middle.reformat(width, height, "yuv420p")))
        out.mux(stream.encode())
    return (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={path}",
    )
