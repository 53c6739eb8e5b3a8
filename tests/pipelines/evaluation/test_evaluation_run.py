from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

import assets
from compression.budget import FPS_30
from detector.engine import Model
from detector.faces import MediaPipeFaces
from detector.models import DEFAULT_MODEL, find
from detector.scorer import OnnxScorer
from detector.training.layouts import Kind, Medium
from detector.training.perturb import LEVELS, PERTURBATIONS, TIERS
from detector.types import Label, Reason, UsageError
from detector.verdict import frame_verdict
from pipelines.evaluation.results import UNCHANGED
from pipelines.evaluation.run import (
    CONDITIONS,
    NO_FACE,
    ROBUSTNESS_FRAMES,
    ROBUSTNESS_STRIDE,
    Options,
    frame_score,
    run_all,
)
from pipelines.session import Session, Settings
from pipelines.sources import VideoFile
from tests import clips
from tests.doubles import ListSink, ScriptedFinder, ScriptedScorer, make_card, make_verdict, square

SAMPLES = Path(assets.__file__).parent / "samples"
CLEAN = Options(tiers=False, robustness=False)
FACE = (square(10, 5, 30),)


def make_medium(path, *, fake=False, kind=Kind.VIDEO):
    method = "swap" if fake else "real"
    return Medium(Path(path), Path(path).name, fake, method, "set", frozenset({path.name}), kind)


def write_picture(path, value=128, size=(48, 64)):
    noise = np.random.default_rng(value).integers(0, 60, (*size, 3))
    cv2.imwrite(str(path), (noise + value - 30).clip(0, 255).astype(np.uint8))
    return path


def judge(media, options=CLEAN, *, boxes=FACE, p=0.5, step=lambda: None):
    """Without a model and a face finder: the same boxes everywhere, and ``p`` of every crop."""
    finder = ScriptedFinder(boxes if callable(boxes) else lambda _: boxes)
    return run_all(media, Model(make_card(), ScriptedScorer(p)), finder, options, step)


@pytest.fixture
def film(tmp_path):
    return make_medium(clips.write_clip(tmp_path / "film.mp4", 30))


# ------------------------------------------------------------------------------------------ as `tellframe video` does


@pytest.mark.parametrize(("stride", "max_frames"), [(1, 20), (3, 60)])
def test_a_clip_gets_what_tellframe_video_says_of_it(stride, max_frames):
    stored = find(DEFAULT_MODEL)
    media = [make_medium(SAMPLES / f"{name}.mp4") for name in ("fake", "two_faces", "no_face")]
    with closing(MediaPipeFaces()) as finder:
        options = Options(stride, max_frames, tiers=False, robustness=False)
        found = run_all(media, Model(stored.card, OnnxScorer(stored)), finder, options).clean.clips
    with Session(stored, Settings(FPS_30, stride, max_frames), threads=1) as session:
        for medium, clip in zip(media, found, strict=True):
            record = session.judge(VideoFile(medium.path), ListSink()).record
            assert (clip.label, clip.reason) == (record["verdict"], record["reason"])
            assert clip.p_fake == pytest.approx(record["p_fake"], abs=1e-6)
            assert sum(p is not None for p in clip.frames) == record["frames_scored"]


def test_any_scorer_and_card_will_do(film):
    (clip,) = judge([film], p=0.9).clean.clips
    assert clip.p_fake == pytest.approx(0.9)
    assert clip.label in (Label.FAKE, Label.UNSURE)  # the faces of a 64 px clip are too small to be judged
    assert clip.frames == (pytest.approx(0.9),) * 30
    assert (clip.name, clip.source, clip.method, clip.fake) == ("film.mp4", "set", "real", False)


def test_frames_that_carry_over_what_was_said_are_not_counted_again(film):
    (clip,) = judge([film], Options(stride=4, max_frames=20, tiers=False, robustness=False)).clean.clips
    assert len(clip.frames) == 5


def test_a_frame_without_a_face_has_no_score(film):
    (clip,) = judge([film], boxes=lambda frame: FACE if frame.index < 10 else ()).clean.clips
    assert clip.frames[0] is not None
    assert clip.frames[-1] is None


# ----------------------------------------------------------------------------------------------------------- pictures


def test_a_picture_has_the_score_of_its_most_suspicious_face(tmp_path):
    path = tmp_path / "two.png"
    picture = np.zeros((200, 400, 3), np.uint8)
    picture[:, 200:] = 255
    noise = np.random.default_rng(0).integers(0, 40, picture.shape, np.uint8)
    cv2.imwrite(str(path), np.where(picture > 0, 200 - noise, 60 + noise).astype(np.uint8))
    boxes = (square(40, 40), square(260, 40))
    (still,) = judge([make_medium(path, kind=Kind.IMAGE)], boxes=boxes, p=lambda crop: crop.mean() / 255).clean.stills
    assert still.faces == 2
    assert still.p_fake == pytest.approx(180 / 255, abs=0.02)


def test_a_crowd_in_a_picture_is_scored_to_the_last(tmp_path):
    path = write_picture(tmp_path / "crowd.png", size=(100, 800))
    boxes = [square(80 * i, 10, 70) for i in range(9)]
    scores = iter(np.linspace(0.1, 0.9, 9))
    (still,) = judge([make_medium(path, kind=Kind.IMAGE)], boxes=boxes, p=lambda _: next(scores)).clean.stills
    assert (still.faces, still.p_fake) == (9, pytest.approx(0.9))


def test_a_face_that_cannot_be_judged_counts_only_where_there_is_no_other():
    blurred = make_verdict(0.9, flaw=Reason.BLURRED)
    assert frame_score(frame_verdict([blurred, make_verdict(0.4), make_verdict(0.2)])) == 0.4
    assert frame_score(frame_verdict([blurred])) == 0.9
    assert frame_score(frame_verdict([make_verdict(None)])) is None
    assert frame_score(frame_verdict([])) is None


# -------------------------------------------------------------------------------------------------- tiers, robustness


def test_tiers_shrink_what_the_detector_sees(tmp_path):
    sizes = []

    def look(frame):
        sizes.append(frame.size_wh)
        return ()

    path = clips.write_clip(tmp_path / "large.mp4", 2, size_wh=(1024, 512))
    picture = write_picture(tmp_path / "large.png", size=(500, 1000))
    media = [make_medium(path), make_medium(picture, kind=Kind.IMAGE)]
    found = judge(media, Options(robustness=False), boxes=look)
    assert sizes == [(1024, 512)] * 2 + [(768, 384)] * 2 + [(512, 256)] * 2 + [(1000, 500), (768, 384), (512, 256)]
    assert list(found.tiers) == list(TIERS)
    assert found.tiers["as it is"] == found.clean
    assert all((len(tier.clips), len(tier.stills)) == (1, 1) for tier in found.tiers.values())


def test_perturbed_clips_are_their_first_frames_at_a_pace(film):
    seen = []

    def look(frame):
        seen.append(frame)
        return FACE

    found = judge([film], Options(tiers=False), boxes=look)
    assert list(found.robustness) == list(CONDITIONS)
    assert len(CONDITIONS) == 1 + LEVELS * len(PERTURBATIONS)
    scored = ROBUSTNESS_FRAMES // ROBUSTNESS_STRIDE
    assert {len(judged.clips[0].frames) for judged in found.robustness.values()} == {scored}
    looks = [frame for frame in seen[-scored * len(CONDITIONS) :] if frame.index == 0]  # one a condition
    plain, changed = (
        looks[0].bgr.astype(int),
        {condition: frame.bgr for condition, frame in zip(CONDITIONS, looks, strict=True)},
    )
    grey = changed["saturation", LEVELS].astype(int)
    assert abs(grey - grey.mean(axis=2, keepdims=True)).max() <= 2  # no colour is left
    assert abs(changed["contrast", 1] - plain * 0.85).max() <= 1.5  # blue stayed blue
    assert (changed[UNCHANGED, 0] == plain).all()


def test_the_same_run_gives_the_same_findings(film, tmp_path):
    picture = make_medium(write_picture(tmp_path / "a.png"), kind=Kind.IMAGE)
    runs = [judge([film, picture], Options(max_frames=4), p=lambda crop: crop.std() / 128) for _ in range(2)]
    assert runs[0] == runs[1]


def test_a_clip_that_changes_its_size_is_perturbed_up_to_there(tmp_path):
    path = tmp_path / "both.h264"
    large = clips.write_clip(tmp_path / "b.h264", 4, size_wh=(128, 96), container_format="h264")
    small = clips.write_clip(tmp_path / "a.h264", 8, container_format="h264")
    path.write_bytes(small.read_bytes() + large.read_bytes())
    found = judge([make_medium(path)], Options(tiers=False))
    assert len(found.clean.clips[0].frames) == 12
    assert {len(judged.clips[0].frames) for judged in found.robustness.values()} == {2}


# ------------------------------------------------------------------------------------------------------------ trouble


def test_what_cannot_be_read_is_named_with_its_reason_and_the_rest_is_judged(film, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "empty too.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    clips.write_audio(tmp_path / "sound.mkv")
    (tmp_path / "text.png").write_text("this is no picture")
    names = ["empty.mp4", "empty too.mp4", "text.mp4", "sound.mkv", "text.png", "missing.mp4", "missing.png"]
    media = [make_medium(tmp_path / n, kind=Kind.IMAGE if n.endswith("png") else Kind.VIDEO) for n in names]
    found = judge([*media, film])
    assert [clip.name for clip in found.clean.clips] == ["film.mp4"]
    assert sorted(name for befell in found.failures.values() for name in befell) == sorted(names)
    assert found.failures["the file is empty; check that it was copied to its end"] == ("empty.mp4", "empty too.mp4")
    assert found.failures["cannot be read as a picture; check that it opens in a viewer"] == ("text.png", "missing.png")
    assert not any(str(tmp_path) in reason for reason in found.failures)


def test_media_without_a_face_are_named_and_kept(film, tmp_path):
    picture = make_medium(write_picture(tmp_path / "wall.png"), kind=Kind.IMAGE)
    found = judge([film, picture], boxes=())
    assert found.failures == {NO_FACE: ("film.mp4", "wall.png")}
    assert found.clean.clips[0].label is Label.NO_FACE
    assert [row.p_fake for row in found.clean.rows()] == [None, None]


def test_every_pass_is_a_step_also_of_what_cannot_be_read(film, tmp_path):
    (tmp_path / "empty.mp4").touch()
    steps = []
    options = Options(max_frames=2)
    judge([film, make_medium(tmp_path / "empty.mp4")], options, step=lambda: steps.append(1))
    assert len(steps) == 2 * options.passes == 2 * (1 + 3 + 51)


@pytest.mark.parametrize("wrong", [{"stride": 0}, {"max_frames": 0}])
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        Options(**wrong)
