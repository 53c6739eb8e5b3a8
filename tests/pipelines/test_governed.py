"""A governor in the pipeline, in real time: stages that sleep, and the shipped models under a hopeless budget."""

import time
from pathlib import Path

import pytest

import assets
from compression.budget import FrameBudget
from compression.governor import LAST_STRIDES, LoadGovernor
from detector.engine import Detector, Model
from detector.models import find
from detector.types import Pace, UsageError
from pipelines.run import run
from pipelines.session import Session, Settings
from pipelines.sources import VideoFile
from pipelines.underload import Camera
from tests.doubles import FilmSource, ListSink, ScriptedFinder, ScriptedScorer, make_card, make_frame, noise, square

PICTURE = noise()
SAMPLES = Path(assets.__file__).parent / "samples"
LARGE, SMALL = "efficientnet_lite0_256", "efficientnet_lite0_256_int8"


def sleeping(ms, p=0.9):
    def score(_):
        time.sleep(ms / 1000)
        return p

    return ScriptedScorer(score)


def film(frames):
    return FilmSource([make_frame(i, bgr=PICTURE) for i in range(frames)])


def test_a_model_that_is_too_slow_gives_way_to_one_that_is_not():
    ladder = [Model(make_card(name="slow"), sleeping(60)), Model(make_card(name="quick"), sleeping(1))]
    detector = Detector(ScriptedFinder(lambda _: [square(200, 100)]), ladder[0], cheaper=ladder[1:])
    results = list(run(film(120), detector, LoadGovernor(FrameBudget(40.0), rungs=2)))
    assert results[0].model == "slow"
    assert {said.model for said in results[-30:]} == {"quick"}
    assert all(said.timing.total_ms < 40 for said in results[-30:] if said.fresh)


def test_a_governor_can_be_made_once_the_source_is_open():
    seen = []

    def governor(source):
        seen.append((source.open, source.live))
        return LoadGovernor(FrameBudget(1e6))

    detector = Detector(ScriptedFinder(lambda _: []), Model(make_card(), ScriptedScorer()))
    assert len(list(run(film(40), detector, governor))) == 40
    assert seen == [(True, False)]


# ----------------------------------------------------------------------------------------------------- in a session


@pytest.fixture(scope="module")
def portrait():
    with VideoFile(SAMPLES / "fake.mp4") as source:
        return list(source)


def judged(frames, *, live, models=(LARGE, SMALL), **settings):
    first, *cheaper = map(find, models)
    sink = ListSink()
    hopeless = Settings(FrameBudget(0.001), **settings)
    with Session(first, hopeless, threads=1, cheaper=cheaper) as session:
        return session.judge(FilmSource(frames, live=live), sink).record, sink.results


def test_under_a_budget_that_nothing_keeps_it_goes_all_the_way_and_says_so(portrait):
    said, results = judged(portrait, live=False, governed=True)
    strides = [(find_every, score_every) for find_every, score_every in LAST_STRIDES]
    assert said["pace"] == {"steps": 7, "find_every": strides[-1][0], "score_every": strides[-1][1]}
    assert [model["name"] for model in said["models"]] == [LARGE, SMALL]
    assert sum(model["frames"] for model in said["models"]) == said["frames"] == len(portrait)
    assert said["model"]["name"] == LARGE
    assert results[-1].pace == Pace(24, 24, 0, 1)


def test_one_model_stays_whatever_the_governor_does(portrait):
    said, _ = judged(portrait[:60], live=False, governed=True, models=(SMALL,))
    assert said["pace"]["steps"] > 0
    assert said["models"] == [{"name": SMALL, "frames": 60}]


@pytest.mark.parametrize(("governed", "moves"), [(None, False), (False, False), (True, True)])
def test_a_file_is_judged_frame_by_frame_unless_the_governor_is_asked_for(portrait, governed, moves):
    said, _ = judged(portrait[:30], live=False, governed=governed)
    assert (said["pace"]["steps"] > 0) == moves


def test_each_source_begins_at_full_pace(portrait):
    with Session(find(SMALL), Settings(FrameBudget(0.001), governed=True), threads=1) as session:
        for _ in range(2):
            sink = ListSink()
            session.judge(FilmSource(portrait[:20]), sink)
            assert sink.results[0].pace == Pace()
            assert sink.results[-1].pace != Pace()


class Steady(FilmSource):
    """A live source that waits for no one and loses nothing, so that a test knows what was judged."""

    def __iter__(self):
        for frame in super().__iter__():
            time.sleep(0.05)
            yield frame


@pytest.mark.parametrize(("governed", "moves"), [(None, True), (False, False)])
def test_a_live_source_is_governed_unless_that_is_refused(portrait, governed, moves):
    settings = Settings(FrameBudget(0.001), governed=governed)
    with Session(find(SMALL), settings, threads=1) as session:
        said = session.judge(Steady(portrait[:30], live=True), ListSink()).record
    assert (said["pace"]["steps"] > 0) == moves


@pytest.mark.parametrize("governed", [True, None])
def test_a_stride_and_a_governor_exclude_each_other(governed):
    with pytest.raises(UsageError, match="fixed pace"):
        Settings(FrameBudget(33.0), stride=2, governed=governed)


# ------------------------------------------------------------------------------------------------------- the camera


def test_a_camera_gives_frames_at_its_pace_whatever_the_clip_says():
    with Camera(SAMPLES / "real.mp4", period_ms=10.0) as camera:
        began_s = time.perf_counter()
        frames = [frame for frame, _ in zip(camera, range(30), strict=False)]
        took_s = time.perf_counter() - began_s
    assert camera.live
    assert [frame.pts_ns for frame in frames] == [i * 10_000_000 for i in range(30)]
    assert took_s >= 0.29
