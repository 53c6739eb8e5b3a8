import hypothesis
import pytest

from tests import clips
from tests.fakes import WebServer

# Speed is measured in benchmarks: a busy machine fails no test.
hypothesis.settings.register_profile("tellframe", deadline=None)
hypothesis.settings.load_profile("tellframe")


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """An ordinary clip of 6 frames; not to be changed."""
    return clips.write_clip(tmp_path_factory.mktemp("clips") / "ordinary.mp4")


@pytest.fixture(scope="session")
def transport_stream(tmp_path_factory):
    """The bytes of 3 s of MPEG-TS."""
    path = tmp_path_factory.mktemp("clips") / "stream.ts"
    return clips.write_clip(path, 90, codec_options={"g": "10"}).read_bytes()


@pytest.fixture
def server():
    with WebServer().running() as running:
        yield running
