import csv
import json
import re
import shutil
import threading
import time
from contextlib import contextmanager
from hashlib import sha256
from itertools import islice

import av
import pytest

from detector.types import InputError, NothingToAnalyseError, OutputError, UsageError
from tests.clips import write_audio, write_clip
from tests.shipped import BUDGET, SAMPLES, model
from webapp.job import Cancelled, Job, Limits
from webapp.jobs import Jobs

PATIENCE_S = 60


@contextmanager
def line(folder, **limits):
    """A line of clips whose files lie in ``folder``."""
    folder.mkdir(exist_ok=True)
    with Jobs(folder, [model()], Limits(**limits)) as jobs:
        yield jobs


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def jobs(folder):
    with line(folder) as running:
        yield running


@pytest.fixture(scope="session")
def short(tmp_path_factory):
    """A clip without a face that is judged in no time; not to be changed."""
    return write_clip(tmp_path_factory.mktemp("clips") / "short.mp4", 4)


@pytest.fixture(scope="session")
def long(tmp_path_factory):
    """A clip that would take many seconds; not to be changed."""
    return write_clip(tmp_path_factory.mktemp("clips") / "long.mp4", 6000)


@pytest.fixture(scope="session")
def forged(tmp_path_factory):
    """The first 24 frames of the forged sample; not to be changed."""
    path = tmp_path_factory.mktemp("clips") / "forged.mp4"
    with av.open(str(SAMPLES / "fake.mp4")) as clip, av.open(str(path), "w") as out:
        (source,) = clip.streams.video
        stream = out.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = source.width, source.height, "yuv420p", 8_000_000
        for frame in islice(clip.decode(source), 24):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")))
        out.mux(stream.encode())
    return path


def added(jobs, user, clip, name=None, **options):
    return jobs.get(user, jobs.add(user, clip, name or clip.name, BUDGET, **options))


def ended(job):
    assert job.wait(PATIENCE_S)
    return job


def wait_until(done):
    until = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)


def begun(job):
    wait_until(lambda: job.progress.frames > 0)
    return job


# ----------------------------------------------------------------------------------------------- one clip


def test_a_clip_goes_from_the_line_to_its_result_with_files_about_it(jobs, folder, forged):
    job = added(jobs, "ann", forged, "Holiday.MP4")
    judged = ended(job).result()
    digest = sha256(forged.read_bytes()).hexdigest()
    assert judged.record["path"] == "Holiday.MP4"
    assert judged.record["verdict"] == "FAKE"
    assert judged.record["frames"] == 24
    assert judged.record["pace"]["score_every"] == 3
    assert judged.record["file"] == {"name": "Holiday.MP4", "bytes": forged.stat().st_size, "sha256": digest}
    assert json.loads(judged.json.read_text()) == judged.record
    with judged.csv.open() as rows:
        assert {int(row["index"]) for row in csv.DictReader(rows)} == set(range(24))
    with av.open(str(judged.video)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 24
    report = judged.report.read_text()
    assert digest in report
    assert "Holiday.MP4" in report
    assert "one frame in 3" in report
    assert list(judged.thumbnails) == [face["track"] for face in judged.record["faces"]]
    assert [len(each.heat) for each in judged.moments] == [360]
    assert judged.timeline.frames == 24
    assert set(job.folder.iterdir()) == {judged.video, judged.csv, judged.json, judged.report}
    assert job.folder.parent == folder
    assert job.folder.stat().st_mode & 0o077 == 0
    assert forged.exists()


def test_every_frame_is_judged_when_that_is_asked_for(jobs, forged):
    judged = ended(added(jobs, "ann", forged, stride=1)).result()
    assert judged.record["frames_scored"] == judged.record["frames"] == 24
    assert "every frame judged" in judged.report.read_text()


def test_progress_grows_to_the_end(jobs, forged):
    job = added(jobs, "ann", forged)
    seen = []
    while not job.ended:
        seen.append(job.progress)
        time.sleep(0.002)
    frames = [progress.frames for progress in seen]
    assert frames == sorted(frames)
    assert (frames[0], job.progress.frames) == (0, 24)
    assert all(progress.expected == 24 and 0 < progress.share <= 1 for progress in seen if progress.frames)
    assert any(progress.eta_s is not None for progress in seen)
    assert seen[-1].explaining


def test_the_upload_may_go_as_soon_as_it_was_taken(jobs, short, tmp_path):
    upload = shutil.copy(short, tmp_path / "upload.mp4")
    job = added(jobs, "ann", upload)
    upload.unlink()
    assert ended(job).result().record["frames"] == 4


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\clips\\a.mp4", "a.mp4"),
        ("a\n\x1b[31m.mp4", "a[31m.mp4"),
        ("", "clip"),
        ("../", "clip"),
    ],
)
def test_a_name_is_only_a_name(jobs, short, name, shown):
    job = jobs.get("ann", jobs.add("ann", short, name, BUDGET))
    assert ended(job).result().record["file"]["name"] == shown
    assert job.name == shown


def test_what_went_wrong_reaches_whoever_asks_and_leaves_nothing(jobs, folder, long, short):
    first = begun(added(jobs, "ann", long))
    job = added(jobs, "bob", short, "mine.mp4")
    next(job.folder.glob("clip.*")).unlink()
    first.cancel()
    with pytest.raises(InputError, match=r"^mine\.mp4: "):
        ended(job).result()
    assert not job.folder.exists()


# ----------------------------------------------------------------------------------------------- giving up


def test_cancelling_ends_a_clip_soon_and_deletes_what_was_made_of_it(jobs, folder, long):
    job = begun(added(jobs, "ann", long))
    jobs.cancel("ann")
    assert job.wait(5)
    with pytest.raises(Cancelled):
        job.result()
    assert list(folder.iterdir()) == []


def test_a_clip_that_waits_is_cancelled_at_once(jobs, long, short):
    first = begun(added(jobs, "ann", long))
    second, third = added(jobs, "bob", short), added(jobs, "cy", short)
    jobs.cancel("bob")
    assert second.ended
    assert not first.ended
    assert not second.folder.exists()
    assert jobs.ahead(third) == 1


def test_cancelling_what_has_ended_leaves_its_result(jobs, short):
    job = ended(added(jobs, "ann", short))
    jobs.cancel("ann")
    assert job.result().video.exists()
    jobs.cancel("nobody")


def test_forgetting_gives_up_a_clip_and_deletes_its_folder(jobs, folder, long, short):
    for clip, until in ((short, ended), (long, begun)):
        job = until(added(jobs, "ann", clip))
        assert job.folder.exists()
        jobs.forget("ann")
        assert job.ended
        assert list(folder.iterdir()) == []
        assert jobs.get("ann", job.folder.name) is None
    jobs.forget("ann")


def test_a_new_clip_takes_the_place_of_the_users_last_one(jobs, folder, long, short):
    before = begun(added(jobs, "ann", long))
    after = added(jobs, "ann", short)
    assert before.ended
    assert ended(after).result().record["frames"] == 4
    assert [each.name for each in folder.iterdir()] == [after.folder.name]


def test_of_clips_that_one_user_adds_at_the_same_moment_one_stays(jobs, folder, short):
    threads = [threading.Thread(target=added, args=(jobs, "ann", short)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (kept,) = folder.iterdir()
    assert ended(jobs.get("ann", kept.name)).result().record["frames"] == 4


# ----------------------------------------------------------------------------------------------- several users


def test_one_users_clip_is_of_no_use_to_another(jobs, short):
    ident = jobs.add("ann", short, "a.mp4", BUDGET)
    assert isinstance(jobs.get("ann", ident), Job)
    assert jobs.get("bob", ident) is None
    assert jobs.get("ann", "") is None
    other = jobs.add("bob", short, "b.mp4", BUDGET)
    assert jobs.get("bob", ident) is None
    assert len(other) >= 20
    jobs.cancel("bob")
    jobs.forget("bob")
    assert ended(jobs.get("ann", ident)).result().record["path"] == "a.mp4"


def test_the_line_is_first_come_first_served_and_everybody_sees_how_many_are_ahead(jobs, long, short):
    first = begun(added(jobs, "ann", long))
    waiting = [added(jobs, user, short) for user in ("bob", "cy", "di")]
    assert [jobs.ahead(job) for job in (first, *waiting)] == [0, 1, 2, 3]
    first.cancel()
    seen = []
    while not waiting[-1].ended:
        seen.append(jobs.ahead(waiting[-1]))
        time.sleep(0.001)
    assert sorted(seen, reverse=True) == seen
    assert set(seen) >= {2, 1, 0}
    ages = [job.age_s for job in (first, *waiting)]
    assert sorted(ages, reverse=True) == ages
    assert [jobs.ahead(job) for job in waiting] == [0, 0, 0]


def test_ten_clips_at_once_all_get_their_own_result(jobs, tmp_path):
    clips = [write_clip(tmp_path / f"{i}.mp4", 3 + i) for i in range(10)]
    running = {}

    def upload(i):
        running[i] = added(jobs, f"user {i}", clips[i])

    threads = [threading.Thread(target=upload, args=(i,)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(10):
        judged = ended(running[i]).result()
        assert (judged.record["path"], judged.record["frames"]) == (f"{i}.mp4", 3 + i)
        assert judged.record["file"]["sha256"] == sha256(clips[i].read_bytes()).hexdigest()
        assert json.loads(judged.json.read_text()) == judged.record


def test_a_full_line_takes_no_more_and_the_user_keeps_the_clip_before(folder, long, short):
    with line(folder, jobs=2) as jobs:
        kept = ended(added(jobs, "ann", short))
        begun(added(jobs, "bob", long))
        added(jobs, "cy", short)
        with pytest.raises(UsageError, match="2 clips are being judged or wait already; try again"):
            jobs.add("ann", short, "more.mp4", BUDGET)
        assert kept.result().video.exists()
        assert len(list(folder.iterdir())) == 3


# ----------------------------------------------------------------------------------------------- what is refused


def text_file(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("not a video at all\n" * 100)
    return path


@pytest.mark.parametrize(
    ("make", "limits", "error", "words"),
    [
        (None, {"bytes": 1000}, InputError, "at most 0 MB are taken: cut it"),
        (None, {"seconds": 0.1}, InputError, "is 0 seconds long; at most 0 seconds are taken: cut it into parts"),
        (None, {"pixels": 3000}, InputError, "has 64x48 pixels; at most 0.0 million are taken: scale it down"),
        (lambda path: write_audio(path / "a.wav"), {}, NothingToAnalyseError, ""),
        (text_file, {}, InputError, "cannot be read as video"),
        (lambda path: path / "gone.mp4", {}, InputError, ""),
    ],
    ids=["too large", "too long", "too many pixels", "no video", "text", "not there"],
)
def test_what_cannot_be_judged_is_refused_by_the_name_that_the_user_knows(
    folder, tmp_path, short, make, limits, error, words
):
    clip = short if make is None else make(tmp_path)
    with line(folder, **limits) as jobs:
        with pytest.raises(error, match=r"^My clip\.mp4: ") as refused:
            jobs.add("ann", clip, "My clip.mp4", BUDGET)
        assert words in str(refused.value)
        assert str(clip.parent) not in str(refused.value)
        assert list(folder.iterdir()) == []


def test_a_clip_that_there_is_no_place_for_is_refused_in_words(jobs, folder, short):
    folder.rmdir()
    with pytest.raises(OutputError, match=r"^short\.mp4: cannot be kept .*; is the disk full\?$"):
        jobs.add("ann", short, "short.mp4", BUDGET)
    assert not folder.exists()


def test_a_refused_clip_leaves_the_users_last_one_alone(jobs, short, tmp_path):
    job = ended(added(jobs, "ann", short))
    with pytest.raises(InputError):
        jobs.add("ann", text_file(tmp_path), "notes.mp4", BUDGET)
    assert jobs.get("ann", job.folder.name) is job
    assert job.result().report.exists()


def test_a_clip_that_hides_its_length_is_given_up_when_it_is_too_long(folder, tmp_path):
    clip = write_clip(tmp_path / "endless.h264", 60, container_format="h264")
    with line(folder, seconds=0.5) as jobs:
        job = added(jobs, "ann", clip)
        with pytest.raises(InputError, match=re.escape("endless.h264: is longer than 0 seconds; cut it into parts")):
            ended(job).result()
        assert not job.folder.exists()


# ----------------------------------------------------------------------------------------------- nothing stays


def test_results_are_deleted_some_time_after_their_clip_was_judged(folder, long, short):
    with line(folder, keep_s=0.5) as jobs:
        slow = begun(added(jobs, "ann", long))
        job = added(jobs, "bob", short)
        time.sleep(0.7)  # neither has ended: both stay
        assert jobs.get("bob", job.folder.name) is job
        assert not slow.cancelled
        slow.cancel()
        assert ended(job).result().report.exists()
        wait_until(lambda: jobs.get("bob", job.folder.name) is None)
        assert job.age_s >= 0.5
        wait_until(lambda: not any(folder.iterdir()))


def test_leaving_the_context_leaves_no_files_and_no_threads(folder, long, short):
    before = set(threading.enumerate())
    with line(folder) as jobs:
        done = ended(added(jobs, "ann", short))
        running = begun(added(jobs, "bob", long))
        waiting = added(jobs, "cy", short)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert list(folder.iterdir()) == []
    assert done.ended
    for job in (running, waiting):
        with pytest.raises(Cancelled):
            job.result()
    assert set(threading.enumerate()) <= before
