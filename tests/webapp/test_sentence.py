"""What can be quoted of a clip, for every verdict."""

import pytest

from detector.types import Label, Reason
from tests.shipped import judged
from webapp.view import sentence, verdict_html

UNSURE = [
    Reason.BETWEEN, Reason.DISAGREE, Reason.TOO_SMALL, Reason.BLURRED, Reason.DARK, Reason.TURNED_AWAY,
    Reason.TOO_FEW_FRAMES,
]  # fmt: skip


def record_of(label, reason, p_fake, faces=None, **changes):
    """What a record says of its verdict; one face of the same word unless ``faces`` (words) are given."""
    words = [label] if faces is None else faces
    return {
        "verdict": label,
        "reason": reason,
        "p_fake": p_fake,
        "faces": [{"verdict": word} for word in words],
        "frames": 120,
        "frames_scored": 40,
        "duration_s": 4.0,
        "complete": True,
    } | changes


def fake(p_fake=0.962, **changes):
    return sentence(record_of(Label.FAKE, Reason.ABOVE_FAKE, p_fake, **changes))


def real(p_fake=0.04, **changes):
    return sentence(record_of(Label.REAL, Reason.BELOW_REAL, p_fake, **changes))


def test_a_fake_is_told_with_confidence_score_what_was_seen_and_its_limit():
    assert fake() == (
        "Tellframe, an automatic detector, found signs of manipulation in the face in this video, with high confidence "
        "(score 0.96 where 0 is real and 1 is fake; 40 frames scored in 4.0 seconds of video). "
        "That is evidence, not proof."
    )


def test_a_real_clip_is_told_as_nothing_found_which_proves_nothing():
    assert real() == (
        "Tellframe, an automatic detector, found no sign of manipulation in the face in this video, with high "
        "confidence (score 0.04 where 0 is real and 1 is fake; 40 frames scored in 4.0 seconds of video). "
        "That does not prove that the video is real."
    )


@pytest.mark.parametrize(("p", "word"), [(0.9, "high"), (0.89, "moderate"), (0.75, "moderate"), (0.74, "low")])
def test_confidence_falls_towards_the_middle_of_the_scale_from_both_ends(p, word):
    assert f"with {word} confidence" in fake(p)
    assert f"with {word} confidence" in real(round(1 - p, 2))


@pytest.mark.parametrize("reason", UNSURE)
def test_whoever_is_not_sure_says_why_claims_nothing_and_says_what_would_help(reason):
    record = record_of(Label.UNSURE, reason, 0.4)
    said = sentence(record)
    assert said.startswith("Tellframe, an automatic detector, cannot tell whether the face in this video is real: it ")
    assert said.endswith("That speaks neither for nor against the video.")
    assert "confidence" not in said
    assert "signs" not in said
    assert "What would help" in verdict_html(record, said)


def test_every_reason_not_to_be_sure_has_words_of_its_own():
    said = {sentence(record_of(Label.UNSURE, reason, 0.4)) for reason in UNSURE}
    assert len(said) == len(UNSURE)


def test_of_several_faces_the_one_that_matters_is_spoken_of():
    said = sentence(record_of(Label.UNSURE, Reason.BLURRED, 0.4, faces=[Label.UNSURE, Label.UNSURE]))
    assert "the faces in this video are real: the one that matters most is too blurred (score 0.40" in said


def test_a_face_that_was_never_scored_has_no_score_in_the_sentence():
    said = sentence(record_of(Label.UNSURE, Reason.TOO_FEW_FRAMES, None, frames_scored=0))
    assert "(no frame in 4.0 seconds of video could be scored)" in said
    assert "None" not in said


@pytest.mark.parametrize(
    ("faces", "words"),
    [
        ([Label.FAKE, Label.REAL, Label.UNSURE], "in 1 of the 3 faces followed in this video"),
        ([Label.FAKE, Label.FAKE], "in both faces followed in this video"),
        ([Label.FAKE] * 3, "in all 3 faces followed in this video"),
    ],
)
def test_it_is_said_of_how_many_faces_it_speaks(faces, words):
    assert words in fake(faces=faces)


def test_the_score_of_several_is_called_the_highest():
    assert "(their highest score 0.96 " in fake(faces=[Label.FAKE, Label.FAKE])
    assert "(score 0.96 " in fake(faces=[Label.FAKE, Label.REAL])


def test_a_clip_without_a_face_is_neither_real_nor_fake():
    said = sentence(record_of(Label.NO_FACE, Reason.NO_FACE, None, faces=[], frames_scored=0))
    assert said == (
        "Tellframe, an automatic detector, found no face in 4.0 seconds of video. That says nothing about the video."
    )


@pytest.mark.parametrize(
    ("label", "reason", "p_fake"),
    [
        (Label.FAKE, Reason.ABOVE_FAKE, 0.9),
        (Label.REAL, Reason.BELOW_REAL, 0.1),
        (Label.UNSURE, Reason.BETWEEN, 0.5),
        (Label.NO_FACE, Reason.NO_FACE, None),
    ],
)
def test_a_clip_that_was_cut_short_is_told_so_under_every_verdict(label, reason, p_fake):
    whole = record_of(label, reason, p_fake, faces=[] if label is Label.NO_FACE else None)
    assert sentence(whole | {"complete": False}) == sentence(whole) + " Only the beginning of the video was judged."


def test_one_frame_is_one_frame():
    assert "; 1 frame scored in" in fake(frames_scored=1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fake.mp4", "found signs of manipulation in the face"),
        ("real.mp4", "the face in this video"),
        ("two_faces.mp4", "faces"),
        ("no_face.mp4", "found no face"),
    ],
)
def test_real_records_have_their_sentence(name, words):
    said = sentence(judged(name).record)
    assert words in said
    assert said.endswith("Only the beginning of the video was judged.") == (not judged(name).record["complete"])
