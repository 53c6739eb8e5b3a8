"""Where frames come from: one class a kind of source, all of them :class:`detector.types.FrameSource`."""

from pipelines.sources.images import ImageFolder
from pipelines.sources.network import NetworkStream
from pipelines.sources.raw import EncodedStream, RawFrames
from pipelines.sources.video_file import VideoFile
from pipelines.sources.webcam import Webcam

__all__ = ["EncodedStream", "ImageFolder", "NetworkStream", "RawFrames", "VideoFile", "Webcam"]
