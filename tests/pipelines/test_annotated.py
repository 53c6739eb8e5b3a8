import av
import cv2
import numpy as np
import pytest

from detector.types import Label, OutputError, SourceInfo, UsageError
from pipelines.annotated import AnnotatedVideo
from pipelines.videofile import VideoFile
from tests.pipelines.results import file_limit, make_picture, make_result

INFO = SourceInfo("clip", fps=25.0)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def decode(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(video=0))
        return stream, frames, container.duration / 1e6


def write_video(path, pictures, times_ns=None, **options):
    video = VideoFile(path, **options)
    for index, picture in enumerate(pictures):
        video.write(picture, 40_000_000 * index if times_ns is None else times_ns[index])
    video.close()


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


# ------------------------------------------------------------------------------------------------ the file


def test_the_file_is_what_a_browser_plays(tmp_path):
    write_video(tmp_path / "out.mp4", [make_picture()] * 5)
    stream, frames, duration_s = decode(tmp_path / "out.mp4")
    assert stream.codec_context.name == "h264"
    assert stream.codec_context.pix_fmt == "yuv420p"
    assert (stream.codec_context.width, stream.codec_context.height) == (128, 96)
    assert stream.average_rate == 25
    assert len(frames) == 5
    assert duration_s == pytest.approx(0.2)
    data = (tmp_path / "out.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    assert names(tmp_path) == ["out.mp4"]


def test_every_frame_keeps_its_own_time(tmp_path):
    # A camera: never regular; 0.1 ms apart, a second apart, and a first frame that is late.
    times_ns = [7_000_000, 7_100_000, 41_234_567, 1_000_000_000, 1_033_333_333, 1_066_666_667]
    write_video(tmp_path / "out.mp4", [make_picture(shade=40 * i) for i in range(6)], times_ns)
    stream, frames, duration_s = decode(tmp_path / "out.mp4")
    assert stream.time_base.denominator >= 90_000
    seconds = [float(frame.pts * frame.time_base) for frame in frames]
    assert seconds[0] == 0
    assert seconds == pytest.approx([(t - times_ns[0]) / 1e9 for t in times_ns], abs=6e-6)
    assert duration_s == pytest.approx(seconds[-1] + 1 / 30, abs=1e-3)


def test_times_that_do_not_grow_are_moved_just_after_the_last(tmp_path):
    write_video(tmp_path / "out.mp4", [make_picture()] * 4, [0, 0, 5_000_000, 4_000_000])
    _, frames, _ = decode(tmp_path / "out.mp4")
    assert [frame.pts for frame in frames] == [0, 1, 450, 451]


@pytest.mark.parametrize(
    ("size", "stored"), [((1, 1), (16, 16)), ((17, 33), (18, 34)), ((127, 95), (128, 96)), ((2, 200), (16, 200))]
)
def test_odd_and_tiny_pictures_are_stored_even(tmp_path, size, stored):
    write_video(tmp_path / "out.mp4", [make_picture(*size, shade=200)] * 2)
    stream, frames, _ = decode(tmp_path / "out.mp4")
    assert (stream.codec_context.width, stream.codec_context.height) == stored
    assert len(frames) == 2
    assert abs(int(frames[0].to_ndarray(format="bgr24").max()) - 200) < 6


def test_a_size_that_changes_is_fitted_into_the_first(tmp_path):
    pictures = [make_picture(128, 96, 200), make_picture(96, 128, 200), make_picture(640, 120, 200)]
    write_video(tmp_path / "out.mp4", pictures)
    stream, frames, _ = decode(tmp_path / "out.mp4")
    assert (stream.codec_context.width, stream.codec_context.height) == (128, 96)
    grey = [frame.to_ndarray(format="gray") for frame in frames]
    assert grey[1][48, 64] > 150  # the picture in the middle
    assert grey[1][48, 10] < 40  # black beside it
    assert grey[2][10, 64] < 40  # black above it


def test_the_colours_survive(tmp_path):
    picture = make_picture(128, 96)
    for i, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 94, 213)]):
        picture[:, 32 * i : 32 * (i + 1)] = colour
    write_video(tmp_path / "out.mp4", [picture])
    stream, frames, _ = decode(tmp_path / "out.mp4")
    back = frames[0].to_ndarray(format="bgr24")
    for x in (16, 48, 80, 112):
        assert np.abs(back[48, x].astype(int) - picture[48, x]).max() < 12
    assert stream.codec_context.colorspace == 6  # BT.601, as it was converted


@pytest.mark.parametrize("fps", [None, 0.0, float("nan"), 1e-9, 29.97])
def test_one_picture_is_a_video_whatever_rate_is_claimed(tmp_path, fps):
    write_video(tmp_path / "out.mp4", [make_picture()], fps=fps)
    _, frames, duration_s = decode(tmp_path / "out.mp4")
    assert len(frames) == 1
    assert duration_s == pytest.approx(1 / 30, abs=1e-3)


def test_a_full_disk_leaves_the_earlier_file_and_no_part(tmp_path):
    (tmp_path / "out.mp4").write_text("earlier")
    video = VideoFile(tmp_path / "out.mp4")

    def fill():
        for index in range(100):
            video.write(noise(320, 240, index), 40_000_000 * index)

    with file_limit(100_000), pytest.raises(OutputError, match="cannot write"):
        fill()
    video.close()
    assert names(tmp_path) == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_text() == "earlier"


# ------------------------------------------------------------------------------------------------ the sink


def results(count, **options):
    picture = make_picture(**options)
    return [make_result(Label.FAKE if i % 2 else Label.REAL, index=i, bgr=picture) for i in range(count)]


def test_every_result_is_a_frame_of_the_video_with_the_verdict_on_it(tmp_path):
    plain = make_picture(320, 240)
    with AnnotatedVideo(tmp_path / "out.mp4", 33.3, 0.3, 0.7) as sink:
        sink.begin("clip.mp4", INFO)
        for result in results(20, width=320, height=240):
            sink.write(result)
    _, frames, duration_s = decode(tmp_path / "out.mp4")
    assert len(frames) == 20
    assert duration_s == pytest.approx(0.8)
    assert cv2.absdiff(frames[5].to_ndarray(format="bgr24"), plain).max() > 100
    assert names(tmp_path) == ["out.mp4"]
    assert sink.paths == (tmp_path / "out.mp4",)


def test_an_interrupted_run_leaves_a_whole_shorter_video(tmp_path):
    def run():
        with AnnotatedVideo(tmp_path / "out.mp4") as sink:
            for result in results(7):
                sink.write(result)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(decode(tmp_path / "out.mp4")[1]) == 7
    assert names(tmp_path) == ["out.mp4"]


def test_no_results_leave_no_file(tmp_path):
    with AnnotatedVideo(tmp_path / "out.mp4") as sink:
        sink.begin("clip.mp4", INFO)
    sink.close()
    with AnnotatedVideo(tmp_path / "out.mp4"):
        pass
    assert names(tmp_path) == []


def test_an_error_of_the_thread_reaches_the_caller_once(tmp_path):
    sink = AnnotatedVideo(tmp_path / "out.mp4")

    def fill():
        for index in range(200):
            sink.write(make_result(index=index, bgr=noise(320, 240, index)))

    with file_limit(50_000), pytest.raises(OutputError, match="cannot write"):
        fill()
    sink.close()
    assert names(tmp_path) == []


def test_an_error_at_the_end_reaches_the_caller_too(tmp_path):
    sink = AnnotatedVideo(tmp_path / "out.mp4")
    sink.write(results(1)[0])
    (tmp_path / "out.mp4").mkdir()  # in the way when the file is moved to its place
    with pytest.raises(OutputError, match="it is a folder"):
        sink.close()
    assert names(tmp_path) == ["out.mp4"]


def test_a_folder_gets_a_file_for_every_clip(tmp_path):
    with AnnotatedVideo(tmp_path) as sink:
        for clip in ("a/one.mp4", "b/one.mov", "rtsp://user@cam:554/live?x=1", ".."):
            sink.begin(clip, INFO)
            for result in results(2):
                sink.write(result)
    assert names(tmp_path) == sorted(
        ["one.annotated.mp4", "one-2.annotated.mp4", "live-x-1.annotated.mp4", "clip.annotated.mp4"]
    )
    assert all(len(decode(path)[1]) == 2 for path in sink.paths)


def test_a_second_clip_in_one_file_is_a_usage_error_and_the_first_is_kept(tmp_path):
    with AnnotatedVideo(tmp_path / "out.mp4") as sink:
        sink.begin("a.mp4", INFO)
        sink.write(results(1)[0])
        with pytest.raises(UsageError, match="existing folder"):
            sink.begin("b.mp4", INFO)
    assert len(decode(tmp_path / "out.mp4")[1]) == 1


def test_a_bad_path_is_found_at_once(tmp_path):
    with pytest.raises(OutputError, match="create the folder"):
        AnnotatedVideo(tmp_path / "missing" / "out.mp4")
    with pytest.raises(OutputError, match="device"):
        AnnotatedVideo("/dev/null")


def test_the_clip_itself_is_refused_as_output(tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"precious")
    with pytest.raises(OutputError, match="input itself"), AnnotatedVideo(clip) as sink:
        sink.begin(str(clip), INFO)
    assert clip.read_bytes() == b"precious"
    assert names(tmp_path) == ["clip.mp4"]


def test_a_closed_sink_refuses_results(tmp_path):
    sink = AnnotatedVideo(tmp_path / "out.mp4")
    sink.close()
    with pytest.raises(ValueError, match="closed"):
        sink.write(results(1)[0])
