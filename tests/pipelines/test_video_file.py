"""What is special about video files: times, rotation, damage, and what cannot be opened."""

import os
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from detector.types import InputError, NothingToAnalyseError
from pipelines.sources import VideoFile
from tests import clips

ROOT = Path(__file__).parents[2]


def read(path):
    """All frames, and the source they came from."""
    with VideoFile(path) as source:
        return list(source), source


def refusal(path, error=InputError):
    with pytest.raises(error) as caught, VideoFile(path) as source:
        list(source)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def damage(path, at, size):
    """Overwrites ``size`` bytes at the fraction ``at`` of the file with noise."""
    data = bytearray(path.read_bytes())
    start = int(len(data) * at)
    data[start : start + size] = np.random.default_rng(0).bytes(size)
    path.write_bytes(data)


def blank_jpegs(path, numbers):
    """Overwrites frames of an MJPEG clip with zeros."""
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data)) if data.startswith(b"\xff\xd8\xff", i)] + [data.rindex(b"idx1")]
    for number in numbers:
        end = starts[number + 1] - 8  # keeps the header of the chunk that follows
        data[starts[number] : end] = bytes(end - starts[number])
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv444p10le"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.mov", "mjpeg", "yuvj422p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
    ],
)
def test_decodes_the_usual_containers_and_codecs(tmp_path, name, codec, pix_fmt):
    frames, source = read(clips.write_clip(tmp_path / name, codec=codec, pix_fmt=pix_fmt))
    assert len(frames) == 6
    assert source.info.size_wh == clips.SIZE_WH
    assert all(clips.quadrants(frame.bgr) == clips.UPRIGHT for frame in frames)


def test_says_how_long_the_clip_is(clip):
    _, source = read(clip)
    assert source.info.frames == 6
    assert source.info.duration_s == pytest.approx(0.2)


def test_is_not_live(clip):
    assert VideoFile(clip).live is False


@pytest.mark.parametrize("name", ["50% of:it.mp4", "имя файла.mp4", "clip%03d.mp4", "http:x.mp4", "-x.mp4"])
def test_opens_files_of_any_name(tmp_path, name):
    frames, source = read(clips.write_clip(tmp_path / "plain.mp4").rename(tmp_path / name))
    assert len(frames) == 6
    assert source.info.name.endswith(name)


@pytest.mark.parametrize("first", [0, 700])
def test_variable_frame_rate_keeps_its_exact_times(tmp_path, first):
    times = [first + t for t in (0, 7, 40, 41, 1000, 90001)]
    frames, _ = read(clips.write_clip(tmp_path / "vfr.mkv", times=times, time_base=Fraction(1, 1000)))
    assert [frame.pts_ns for frame in frames] == [(t - first) * 1_000_000 for t in times]


def test_times_that_are_no_whole_nanoseconds_do_not_drift(tmp_path):
    frames, _ = read(clips.write_clip(tmp_path / "ntsc.mp4", 61, time_base=Fraction(1001, 30000)))
    assert [frame.pts_ns for frame in frames] == [round(Fraction(i * 1001 * 10**9, 30000)) for i in range(61)]


@pytest.mark.parametrize("mirror", [False, True], ids=["plain", "mirrored"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_turned_and_mirrored_clips_are_shown_as_a_player_shows_them(tmp_path, rotation, mirror):
    path = clips.write_clip(tmp_path / "turned.mp4", rotation=rotation, mirror=mirror)
    frames, source = read(path)
    bgr = frames[0].bgr
    expected = np.rot90(clips.picture(0), rotation // 90)  # counter-clockwise; mirrored after that
    expected = expected[:, ::-1] if mirror else expected
    assert clips.quadrants(bgr) == clips.quadrants(expected)
    assert bgr.shape == expected.shape
    assert source.info.size_wh == (bgr.shape[1], bgr.shape[0])
    assert bgr.flags.c_contiguous


def test_full_range_white_stays_white(tmp_path):
    frames, _ = read(clips.write_clip(tmp_path / "full.avi", codec="mjpeg", pix_fmt="yuvj420p"))
    assert frames[0].bgr[4, 4].min() >= 250


def test_a_width_that_is_no_round_number_is_not_sheared(tmp_path):
    path = clips.write_clip(tmp_path / "odd.mkv", size_wh=(70, 46), pix_fmt="yuv444p")
    frames, _ = read(path)
    assert frames[0].size_wh == (70, 46)
    assert clips.quadrants(frames[0].bgr) == clips.UPRIGHT


def test_the_size_may_change_on_the_way(tmp_path):
    path = tmp_path / "sizes.ts"
    parts = [clips.write_clip(tmp_path / f"{w}.ts", 4, size_wh=(w, h)).read_bytes() for w, h in ((64, 48), (96, 64))]
    path.write_bytes(b"".join(parts))
    frames, _ = read(path)
    assert {frame.size_wh for frame in frames} == {(64, 48), (96, 64)}
    assert all(clips.quadrants(frame.bgr) == clips.UPRIGHT for frame in frames)
    assert all(a.pts_ns < b.pts_ns for a, b in pairwise(frames))


def test_broken_frames_are_skipped_counted_and_keep_their_index(tmp_path):
    path = clips.write_clip(tmp_path / "broken.avi", 20, codec="mjpeg", pix_fmt="yuvj420p")
    blank_jpegs(path, [5, 9])
    frames, source = read(path)
    assert source.counts.broken == 2
    assert len(frames) == 18
    # Decoding runs ahead in threads, so the hole may show up a few frames early; the sum is exact.
    assert frames[-1].index == 19
    assert clips.mark(frames[5].bgr) == 6


def test_damage_in_the_middle_does_not_stop_the_clip(tmp_path):
    options = {"container_options": {"movflags": "faststart"}, "codec_options": {"g": "10"}}
    path = clips.write_clip(tmp_path / "damaged.mp4", 120, size_wh=(320, 240), **options)
    damage(path, 0.5, 400)
    frames, source = read(path)
    assert 90 < len(frames) < 120
    assert source.counts.broken > 0
    assert clips.mark(frames[-1].bgr) == clips.mark(clips.picture(119))


def test_a_clip_cut_short_gives_the_frames_it_has(tmp_path):
    path = clips.write_clip(
        tmp_path / "short.mp4", 60, container_options={"movflags": "faststart"}, codec_options={"g": "10"}
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    frames, source = read(path)
    assert 10 < len(frames) < 60
    assert source.info.frames == 60


def test_an_mp4_cut_before_its_index_is_refused(tmp_path):
    path = clips.write_clip(tmp_path / "cut.mp4", 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cannot be read as video" in refusal(path)


def test_a_missing_file_is_named(tmp_path):
    assert "no such file" in refusal(tmp_path / "nothing.mp4")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.mp4").touch()
    assert "empty" in refusal(tmp_path / "empty.mp4")


@pytest.mark.parametrize("content", [b"hello world\n" * 50, bytes(range(256)) * 400, b"\0" * 5000])
def test_what_is_no_video_is_refused(tmp_path, content):
    path = tmp_path / "garbage.mp4"
    path.write_bytes(content)
    assert "cannot be read as video" in refusal(path)


def test_a_text_file_is_no_video_although_ffmpeg_draws_its_letters(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello world\n" * 50)
    assert "text" in refusal(path)


def test_a_directory_is_refused(tmp_path):
    assert "is a directory" in refusal(tmp_path)


def test_a_device_is_refused():
    assert "is a device" in refusal("/dev/null")


def test_a_name_that_cannot_be_a_file_is_refused():
    assert "cannot be opened" in refusal("a\0b.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    path = clips.write_clip(tmp_path / "mine.mp4")
    path.chmod(0)
    assert "permission" in refusal(path)


def test_sound_without_pictures_is_nothing_to_analyse(tmp_path):
    path = clips.write_audio(tmp_path / "sound.wav")
    assert "no video stream" in refusal(path, NothingToAnalyseError)


def test_cover_art_is_no_video(tmp_path):
    path = tmp_path / "song.mp3"
    cover = clips.write_clip(tmp_path / "cover.mjpeg", 1, codec="mjpeg", pix_fmt="yuvj420p").read_bytes()
    clips.write_audio(path, "libmp3lame")
    path.write_bytes(id3_with_cover(cover) + path.read_bytes())
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1  # FFmpeg does call it one
    assert "no video stream" in refusal(path, NothingToAnalyseError)


def id3_with_cover(jpeg):
    """An ID3v2.3 tag with an attached picture."""
    body = b"\0image/jpeg\0\x03\0" + jpeg
    frame = b"APIC" + len(body).to_bytes(4, "big") + b"\0\0" + body
    size = bytes((len(frame) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + frame


def test_a_stream_without_one_good_frame_is_nothing_to_analyse(tmp_path):
    path = clips.write_clip(tmp_path / "bad.avi", 3, codec="mjpeg", pix_fmt="yuvj420p")
    blank_jpegs(path, [0, 1, 2])
    assert "no frame" in refusal(path, NothingToAnalyseError)


def playlist(path, entry):
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:4,\n{entry}\n#EXT-X-ENDLIST\n")
    return path


def test_a_playlist_of_local_files_is_played(tmp_path):
    clips.write_clip(tmp_path / "part.ts")
    frames, _ = read(playlist(tmp_path / "list.m3u8", "part.ts"))
    assert len(frames) == 6


def test_a_playlist_that_points_at_the_network_fails_without_a_request(tmp_path, server, transport_stream):
    server.file("/part.ts", transport_stream, "video/mp2t")
    path = playlist(tmp_path / "list.m3u8", server.url("/part.ts"))
    refusal(path)
    assert server.requests == []


def test_nothing_is_written_to_stderr(tmp_path):
    path = clips.write_clip(tmp_path / "damaged.mp4", 120, container_options={"movflags": "faststart"})
    damage(path, 0.6, 300)
    code = (
        "import sys\nfrom pipelines.sources import VideoFile\n"
        "with VideoFile(sys.argv[1]) as source: print(len(list(source)))"
    )
    run = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(run.stdout) > 10
    assert run.stderr == ""
