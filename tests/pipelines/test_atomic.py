import os
import stat

import pytest

from detector.types import OutputError
from pipelines.atomic import PartFile, atomic_writer, refuse_input, writable
from tests.pipelines.results import file_limit


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_and_raise(error, path, **options):
    with atomic_writer(path, **options) as file:
        file.write("so far\n")
        raise error


def test_the_file_appears_only_when_the_block_ends(tmp_path):
    path = tmp_path / "out.txt"
    with atomic_writer(path) as file:
        file.write("first\n")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"first\n"
    assert names(tmp_path) == ["out.txt"]


def test_bytes_can_be_written_too(tmp_path):
    with atomic_writer(tmp_path / "out.bin", "wb") as file:
        file.write(b"\x00\r\n")
    assert (tmp_path / "out.bin").read_bytes() == b"\x00\r\n"


def test_the_part_file_is_hidden_and_private_and_the_finished_one_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        part = PartFile(tmp_path / "out.txt")
        assert part.part.parent == tmp_path
        assert part.part.name.startswith(".")
        assert part.part.name.endswith(".part")
        assert mode_of(part.part) == 0o600
        part.commit()
        assert mode_of(tmp_path / "out.txt") == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_an_exception_leaves_the_earlier_file_as_it_was(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("earlier")
    with pytest.raises(RuntimeError):
        write_and_raise(RuntimeError, path)
    assert path.read_text() == "earlier"
    assert names(tmp_path) == ["out.txt"]


def test_on_request_what_was_written_before_an_interrupt_is_kept(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_and_raise(KeyboardInterrupt, tmp_path / "out.txt", keep_if_interrupted=True)
    assert (tmp_path / "out.txt").read_text() == "so far\n"


@pytest.mark.parametrize("keep", [False, True])
def test_nothing_written_leaves_no_file(tmp_path, keep):
    with atomic_writer(tmp_path / "out.txt", keep_if_interrupted=keep):
        pass
    assert names(tmp_path) == []


def test_commit_and_discard_can_be_repeated(tmp_path):
    part = PartFile(tmp_path / "out.txt")
    part.commit()
    part.discard()
    part.commit()
    assert names(tmp_path) == ["out.txt"]


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    with atomic_writer(tmp_path / "link.txt") as file:
        file.write("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_a_part_file_that_someone_removed_is_an_error_of_one_line(tmp_path):
    part = PartFile(tmp_path / "out.txt")
    part.part.unlink()
    with pytest.raises(OutputError, match=r"cannot write .*out\.txt"):
        part.commit()


def test_writable_leaves_nothing_behind_and_touches_nothing(tmp_path):
    writable(tmp_path / "new.txt")
    assert names(tmp_path) == []
    (tmp_path / "old.txt").write_text("old")
    writable(tmp_path / "old.txt")
    assert (tmp_path / "old.txt").read_text() == "old"


def test_the_longest_possible_name_is_writable(tmp_path):
    writable(tmp_path / ("n" * 255))


def bad_paths(folder):
    (folder / "file").write_text("")
    (folder / "loop").symlink_to("loop")
    yield folder / "missing" / "out.txt", "create the folder"
    yield folder / "file" / "out.txt", "not a folder"
    yield folder, "it is a folder"
    yield "", "it is a folder"
    yield "/dev/null", "device"
    yield folder / ("n" * 256), "shorter"
    yield "nul\0byte", "choose another path"
    yield folder / "two\nlines" / "out.txt", "create the folder"


def test_a_path_that_cannot_be_written_is_an_error_of_one_line_with_advice(tmp_path):
    for path, advice in bad_paths(tmp_path):
        with pytest.raises(OutputError, match=advice) as caught:
            writable(path)
        assert str(caught.value).startswith("cannot write ")
        assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["file", "loop"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_says_so(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    (tmp_path / "old.txt").chmod(0o400)
    with pytest.raises(OutputError, match="write-protected"):
        writable(tmp_path / "old.txt")
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="no permission"):
        writable(tmp_path / "new.txt")


def test_a_full_disk_leaves_the_earlier_file_and_says_so(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("earlier")
    with file_limit(1000), pytest.raises(OutputError, match="cannot write"), atomic_writer(path) as file:
        file.write("x" * 100_000)
    assert path.read_text() == "earlier"
    assert names(tmp_path) == ["out.txt"]


def test_a_result_never_takes_the_place_of_its_clip(tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"precious")
    (tmp_path / "other-name.mp4").hardlink_to(clip)
    for output in (clip, tmp_path / "." / "clip.mp4", tmp_path / "other-name.mp4"):
        with pytest.raises(OutputError, match="input itself"):
            refuse_input(output, str(clip))
    refuse_input(tmp_path / "new.mp4", str(clip))
    refuse_input(tmp_path / "new.mp4", "rtsp://camera/stream")
