import threading
from contextlib import closing

import numpy as np
import pytest

from compression.budget import FixedPace
from detector.engine import Detector, Model
from detector.types import InputError, Label, NothingToAnalyseError, Pace
from pipelines.run import run
from tests.doubles import FilmSource, ScriptedFinder, ScriptedScorer, make_card, make_frame, noise, square
from tests.fakes import FakeSource

PICTURE = noise()


class Diary:
    """A governor that remembers what happened in which order."""

    def __init__(self, paces=None):
        self.entries = []
        self._paces = paces or {}

    def pace(self):
        self.entries.append("pace")
        return self._paces.get(self.entries.count("pace") - 1, Pace())

    def observe(self, result):
        self.entries.append(result.frame.index)


def detector():
    return Detector(ScriptedFinder(lambda _: [square(200, 100)]), Model(make_card(), ScriptedScorer(0.9)))


def film(count, **options):
    return FilmSource([make_frame(i, bgr=PICTURE) for i in range(count)], **options)


def test_every_frame_of_a_file_is_judged_once_and_in_order():
    results = list(run(film(40), detector(), FixedPace()))
    assert [said.frame.index for said in results] == list(range(40))
    assert {said.dropped for said in results} == {0}
    assert results[-1].verdict.label is Label.FAKE


def test_the_governor_says_the_pace_before_each_frame_and_sees_the_frame_after():
    diary = Diary({1: Pace(2, 2)})
    results = list(run(film(3), detector(), diary))
    assert diary.entries == ["pace", 0, "pace", 1, "pace", 2]
    assert [said.fresh for said in results] == [True, False, True]


def test_the_governor_has_seen_a_frame_before_its_result_is_given():
    diary = Diary()
    with closing(run(film(3), detector(), diary)) as results:
        next(results)
        assert diary.entries == ["pace", 0]


def test_of_a_live_source_frames_are_dropped_and_counted_but_never_judged_late():
    behind = threading.Event()
    source = FakeSource(50, live=True, hooks={10: behind.set})
    judged = []
    with closing(run(source, detector(), FixedPace())) as results:
        for said in results:
            judged.append(said)
            behind.wait(5)
    indices = [said.frame.index for said in judged]
    assert indices == sorted(set(indices))
    assert sum(said.dropped for said in judged) + len(judged) == source.given == 50
    assert indices[-1] == 49
    assert len(judged) < 50


def test_nothing_is_read_before_the_first_result_is_asked_for():
    source = film(3)
    results = run(source, detector(), FixedPace())
    assert not source.open
    results.close()
    assert not source.open
    assert not source.stopped


def test_closed_in_the_middle_the_source_is_stopped_and_closed():
    source = FakeSource(1000)
    results = run(source, detector(), FixedPace(), depth=2)
    next(results)
    results.close()
    assert source.stopped.is_set()
    assert source.closed_in is not None
    assert source.given < 20


def test_an_error_of_the_source_comes_after_the_results_of_the_frames_before_it():
    judged = []
    with pytest.raises(InputError, match="the disk is gone"):
        judged.extend(run(film(5, error=InputError("the disk is gone")), detector(), FixedPace()))
    assert [said.frame.index for said in judged] == [0, 1, 2, 3, 4]


def test_a_source_that_does_not_open_is_an_error_at_the_first_result():
    results = run(film(5, open_error=NothingToAnalyseError("sound only")), detector(), FixedPace())
    with pytest.raises(NothingToAnalyseError, match="sound only"):
        next(results)


def test_an_error_of_the_detector_reaches_the_caller_and_closes_the_source():
    def broken(frame):
        if frame.index == 3:
            raise ArithmeticError("no such face")
        return [square(200 + 40 * frame.index, 100)]

    source = film(1000)
    engine = Detector(ScriptedFinder(broken), Model(make_card(), ScriptedScorer()))
    with pytest.raises(ArithmeticError, match="no such face"):
        list(run(source, engine, FixedPace()))
    assert not source.open


def test_frames_are_decoded_in_a_thread_beside_the_judging():
    source = FakeSource(3)
    list(run(source, detector(), FixedPace()))
    assert source.entered_in is source.closed_in is not threading.current_thread()


def test_a_tiny_picture_is_judged_like_any_other():
    frames = [make_frame(i, bgr=np.zeros((1, 1, 3), np.uint8)) for i in range(3)]
    assert len(list(run(FilmSource(frames), detector(), FixedPace()))) == 3
