import pytest

from tests import clips
from tests.cli.run import REAL, looped


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory):
    """40 s with a face: no machine judges it before the test says stop."""
    return looped(REAL, tmp_path_factory.mktemp("long") / "long.mp4", 10)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Two frames of 64 x 48 without a face."""
    return clips.write_clip(tmp_path_factory.mktemp("tiny") / "tiny.mp4", 2)


@pytest.fixture
def out(tmp_path):
    """An empty folder for results."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder
