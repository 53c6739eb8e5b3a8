import threading
from contextlib import closing
from itertools import islice

import numpy as np
import pytest

from detector.types import InputError
from pipelines.handoff import reading
from pipelines.looped import Looped
from pipelines.sources import VideoFile
from tests.clips import mark, write_clip

FRAMES = 6  # of the clip of tests/conftest.py


def taken(path, count):
    with Looped(path) as source:
        return list(islice(source, count))


def test_the_clip_comes_round_and_round(clip):
    marks = [mark(frame.bgr) for frame in taken(clip, 3 * FRAMES)]
    assert marks == list(range(FRAMES)) * 3


def test_the_first_round_is_the_clip_itself(clip):
    with VideoFile(clip) as source:
        once = list(source)
    for ours, theirs in zip(taken(clip, FRAMES), once, strict=True):
        assert (ours.index, ours.pts_ns) == (theirs.index, theirs.pts_ns)
        np.testing.assert_array_equal(ours.bgr, theirs.bgr)


def test_index_and_time_go_on_over_the_seam_as_if_there_were_none(clip):
    frames = taken(clip, 5 * FRAMES)
    assert [frame.index for frame in frames] == list(range(5 * FRAMES))
    steps = np.diff([frame.pts_ns for frame in frames])
    assert (steps > 0).all()
    np.testing.assert_allclose(steps, 1e9 / 30, atol=1e6)


def test_moments_of_capture_go_on_too(clip):
    captured = [frame.captured_ns for frame in taken(clip, 3 * FRAMES)]
    assert captured == sorted(captured)


def test_a_clip_of_one_frame_comes_round_too(tmp_path):
    frames = taken(write_clip(tmp_path / "one.mp4", 1), 5)
    assert [frame.index for frame in frames] == list(range(5))
    assert (np.diff([frame.pts_ns for frame in frames]) > 0).all()


def test_it_knows_the_clip_but_has_no_end(clip):
    with Looped(clip) as source:
        assert source.info.name == str(clip)
        assert (source.info.size_wh, source.info.fps) == ((64, 48), 30.0)
        assert source.info.frames is source.info.duration_s is None
        assert source.live is False


@pytest.mark.parametrize("after", [1, FRAMES - 1, FRAMES, FRAMES + 1, 3 * FRAMES])
def test_stop_ends_it_wherever_it_is(clip, after):
    with Looped(clip) as source:
        seen = 0
        for _ in source:
            seen += 1
            if seen == after:
                source.stop()
                source.stop()
            assert seen <= after + FRAMES
    assert after <= seen <= after + 1


def test_stop_from_another_thread_ends_it(clip):
    with Looped(clip) as source:
        timer = threading.Timer(0.2, source.stop)
        timer.start()
        for _ in source:
            pass
        timer.join()


def test_stopped_before_it_begins_it_gives_nothing(clip):
    source = Looped(clip)
    source.stop()
    with source:
        assert list(source) == []


def test_read_beside_the_consumer_it_is_stopped_by_leaving(clip):
    before = threading.active_count()
    with reading(Looped(clip)) as frames:
        indices = [frame.index for frame, _ in islice(frames, 20)]
    assert indices == list(range(20))
    assert threading.active_count() == before


def test_a_file_that_is_not_there_is_an_error_on_entering(tmp_path):
    source = Looped(tmp_path / "none.mp4")
    with pytest.raises(InputError, match="no such file"), source:
        pass


def test_a_file_that_goes_away_is_an_error_at_the_seam(tmp_path):
    path = write_clip(tmp_path / "brief.mp4", 3)
    with Looped(path) as source, closing(iter(source)) as frames:
        assert len(list(islice(frames, 3))) == 3
        path.unlink()
        with pytest.raises(InputError, match="no such file"):
            next(frames)
