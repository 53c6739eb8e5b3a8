import json
import threading
from pathlib import Path

import pytest

import assets
from compression.budget import FPS_30
from detector.models import DEFAULT_MODEL, find
from detector.types import InputError, Label, NothingToAnalyseError, OutputError, UsageError
from pipelines.report import json_text
from pipelines.session import Session, Settings
from pipelines.sources import VideoFile
from tests.doubles import FilmSource, ListSink, make_frame

SAMPLES = Path(assets.__file__).parent / "samples"


def new_session(**settings):
    return Session(find(DEFAULT_MODEL), Settings(FPS_30, **settings), threads=1)


@pytest.fixture(scope="module")
def session():
    with new_session() as opened:
        yield opened


@pytest.fixture(scope="module")
def short_session():
    with new_session(max_frames=8) as opened:
        yield opened


@pytest.fixture(scope="module")
def portrait():
    """The first frames of the real clip."""
    with VideoFile(SAMPLES / "real.mp4") as source:
        return [frame for frame, _ in zip(source, range(12), strict=False)]


@pytest.fixture(scope="module")
def judged(session):
    """Every sample clip, judged once by one session: result and sink by name."""
    by_name = {}
    for name in ("fake", "real", "two_faces", "no_face"):
        sink = ListSink()
        by_name[name] = session.judge(VideoFile(SAMPLES / f"{name}.mp4"), sink), sink
    return by_name


# -------------------------------------------------------------------------------------------------- the sample clips


def test_the_fake_clip_is_called_fake(judged):
    result, _ = judged["fake"]
    assert result.label is Label.FAKE
    assert result.record["p_fake"] > 0.5
    assert result.record["segments"]


def test_the_real_clip_is_not(judged):
    result, _ = judged["real"]
    assert result.label is not Label.FAKE
    assert result.record["p_fake"] < 0.5


def test_both_people_are_followed_from_the_first_frame_to_the_last(judged):
    result, _ = judged["two_faces"]
    assert [face["frames"] for face in result.record["faces"]] == [75, 75]


def test_where_nobody_is_there_is_no_face_and_no_score(judged):
    result, _ = judged["no_face"]
    assert result.label is Label.NO_FACE
    assert result.record["p_fake"] is None


def test_the_record_of_a_whole_clip_is_complete_and_is_json(judged):
    frames = {"fake": 120, "real": 120, "two_faces": 75, "no_face": 45}
    for name, (result, _) in judged.items():
        said = result.record
        assert json.loads(json_text(said)) == said
        assert (said["frames"], said["complete"], said["dropped"], said["broken"]) == (frames[name], True, 0, 0)
        assert said["duration_s"] == pytest.approx(frames[name] / 30, abs=0.01)
        assert result.error is None
        assert said["path"] == str(SAMPLES / f"{name}.mp4")


def test_every_result_goes_to_the_sink_after_one_begin(judged):
    for name, (result, sink) in judged.items():
        assert [said.frame.index for said in sink.results] == list(range(result.record["frames"]))
        ((path, info),) = sink.begun
        assert path == str(SAMPLES / f"{name}.mp4")
        assert info.fps == 30


def test_clips_do_not_hear_of_each_other(session, portrait):
    """The same frames, judged by one session before and after another clip, and by a new session: the same scores."""
    judged = [session.judge(FilmSource(portrait), ListSink()).record]
    session.judge(FilmSource([make_frame(i, bgr=portrait[0].bgr[:, ::-1].copy()) for i in range(12)]), ListSink())
    judged.append(session.judge(FilmSource(portrait), ListSink()).record)
    with new_session() as fresh:
        judged.append(fresh.judge(FilmSource(portrait), ListSink()).record)
    for key in ("verdict", "reason", "p_fake", "faces", "segments", "frames_scored"):
        assert judged[0][key] == judged[1][key] == judged[2][key]


def test_a_stride_judges_fewer_frames_and_comes_to_the_same_word():
    with new_session(stride=4) as session:
        result = session.judge(VideoFile(SAMPLES / "fake.mp4"), ListSink())
    assert result.label is Label.FAKE
    assert (result.record["frames"], result.record["frames_scored"]) == (120, 30)


# ------------------------------------------------------------------------------------------------------- cut short


def test_max_frames_ends_a_clip_and_the_record_says_so(short_session):
    sink = ListSink()
    source = VideoFile(SAMPLES / "real.mp4")
    result = short_session.judge(source, sink)
    assert len(sink.results) == result.record["frames"] == 8
    assert result.record["complete"] is False
    assert result.error is None


def test_a_clip_of_exactly_max_frames_is_complete(short_session, portrait):
    result = short_session.judge(FilmSource(portrait[:8]), ListSink())
    assert (result.record["frames"], result.record["complete"]) == (8, True)


def test_a_clip_shorter_than_max_frames_is_complete(short_session, portrait):
    result = short_session.judge(FilmSource(portrait[:5]), ListSink())
    assert (result.record["frames"], result.record["complete"]) == (5, True)


@pytest.mark.parametrize("settings", [{"max_frames": 0}, {"max_frames": -1}, {"stride": 0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(UsageError, match="at least 1"):
        Settings(FPS_30, **settings)


# ----------------------------------------------------------------------------------------------------- what goes wrong


def test_an_error_before_the_first_frame_is_raised_and_the_sink_hears_nothing(session):
    sink = ListSink()
    with pytest.raises(InputError, match="no such file"):
        session.judge(VideoFile(SAMPLES / "none.mp4"), sink)
    with pytest.raises(InputError, match="unplugged"):
        session.judge(FilmSource([], error=InputError("unplugged")), sink)
    assert sink.begun == []


def test_a_source_without_a_frame_is_nothing_to_analyse(session):
    with pytest.raises(NothingToAnalyseError, match=r"film: no frame could be decoded"):
        session.judge(FilmSource([]), ListSink())


def test_an_error_in_mid_clip_keeps_what_was_judged(session, portrait):
    sink = ListSink()
    error = InputError("the stick was pulled")
    result = session.judge(FilmSource(portrait, error=error), sink)
    assert result.error is error
    assert (result.record["frames"], result.record["complete"]) == (12, False)
    assert len(sink.results) == 12
    assert result.record["p_fake"] is not None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, OutputError])
def test_so_do_ctrl_c_an_end_signal_and_a_full_disk(session, portrait, kind):
    def trouble(n):
        if n == 7:
            raise kind("now")

    source, sink = FilmSource(portrait), ListSink(trouble)
    result = session.judge(source, sink)
    assert isinstance(result.error, kind)
    assert result.record["frames"] == 7
    assert result.record["complete"] is False
    assert len(sink.results) == 6
    assert not source.open


def test_ctrl_c_before_the_first_frame_is_raised(session):
    with pytest.raises(KeyboardInterrupt):
        session.judge(FilmSource([], error=KeyboardInterrupt()), ListSink())


def test_an_output_that_refuses_the_first_result_is_raised(session, portrait):
    class Refuses(ListSink):
        def begin(self, path, info):
            raise OutputError("the output is the input")

    with pytest.raises(OutputError, match="the output is the input"):
        session.judge(FilmSource(portrait), Refuses())


def test_a_reader_that_went_away_ends_it_at_once(session, portrait):
    def trouble(n):
        if n == 3:
            raise BrokenPipeError

    source = FilmSource(portrait)
    with pytest.raises(BrokenPipeError):
        session.judge(source, ListSink(trouble))
    assert not source.open


def test_a_watcher_sees_every_result_after_the_sink_and_may_stop_the_clip(session, portrait):
    sink, seen = ListSink(), []

    def watch(result):
        assert sink.results[-1] is result
        seen.append(result.frame.index)
        if len(seen) == 4:
            raise KeyboardInterrupt

    result = session.judge(FilmSource(portrait), sink, watch)
    assert seen == [0, 1, 2, 3]
    assert isinstance(result.error, KeyboardInterrupt)


def test_after_a_clip_that_failed_the_next_one_is_judged_as_ever(session, portrait):
    session.judge(FilmSource(portrait, error=InputError("gone")), ListSink())
    result = session.judge(FilmSource(portrait, name="next"), ListSink())
    assert (result.error, result.record["path"], result.record["frames"]) == (None, "next", 12)
    assert [face["track"] for face in result.record["faces"]] == [1]


def test_no_thread_is_left_behind(session, portrait):
    before = threading.active_count()
    session.judge(FilmSource(portrait, error=InputError("gone")), ListSink())
    session.judge(FilmSource(portrait), ListSink())
    assert threading.active_count() == before


def test_a_clip_with_repeated_time_stamps_has_no_more_people_than_it_shows(session):
    with VideoFile(SAMPLES / "two_faces.mp4") as source:
        pictures = [frame.bgr for frame in source]
    frames = [
        make_frame(i, bgr=bgr, pts_ns=(i - i % 2) * 33_333_333 + i % 2 * 1_000)  # as a source repairs them
        for i, bgr in enumerate(pictures)
    ]
    result = session.judge(FilmSource(frames), ListSink())
    assert [face["track"] for face in result.record["faces"]] == [1, 2]
