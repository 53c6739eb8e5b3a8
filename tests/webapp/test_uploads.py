"""Uploads are deleted when nobody touched them for a while, and nothing else is."""

import os
import time

from webapp.uploads import Uploads


def upload(folder, name):
    path = folder / name / "clip.mp4"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"video")
    return path


def test_old_uploads_go_and_new_ones_stay(tmp_path):
    uploads = Uploads(tmp_path, after_s=0.4)
    old = upload(tmp_path, "old")
    time.sleep(0.5)
    new = upload(tmp_path, "new")
    uploads.sweep()
    assert not old.exists()
    assert new.exists()


def test_one_that_was_uploaded_again_stays(tmp_path):
    uploads = Uploads(tmp_path, after_s=0.4)
    path = upload(tmp_path, "twice")
    time.sleep(0.5)
    path.write_bytes(b"again")
    uploads.sweep()
    assert path.exists()


def test_results_are_not_its_business(tmp_path):
    results = tmp_path / "results"
    kept = upload(results, "judged")
    linked = results / "linked.mp4"
    old = upload(tmp_path, "old")
    os.link(old, linked)
    time.sleep(0.3)
    Uploads(tmp_path, results, after_s=0.2).sweep()
    assert kept.exists()
    assert linked.read_bytes() == b"video"  # a clip that is being judged has its own link
    assert not old.exists()


def test_empty_folders_go_too(tmp_path):
    uploads = Uploads(tmp_path, after_s=0.1)
    upload(tmp_path, "old")
    time.sleep(0.2)
    uploads.sweep()
    time.sleep(0.2)  # the folder was changed by the sweep
    uploads.sweep()
    assert list(tmp_path.iterdir()) == []


def test_it_sweeps_by_itself_until_it_is_ended(tmp_path):
    with Uploads(tmp_path, after_s=0.1):
        path = upload(tmp_path, "old")
        deadline = time.monotonic() + 20
        while path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not path.exists()
    late = upload(tmp_path, "late")
    time.sleep(0.4)
    assert late.exists()
