"""`tellframe doctor`."""

from tests.cli.run import tellframe


def test_every_check_is_a_line_and_what_is_wrong_says_how_to_fix_it(tmp_path):
    done = tellframe("doctor", cwd=tmp_path)
    assert done.err == ""
    marks = {line[4:].split()[0].strip(): line[:3].strip() for line in done.out.splitlines()}
    assert set(marks.values()) <= {"ok", "FIX"}
    # How fast the machine is now, and what it has of cores and cameras, is not for a test to say.
    assert {marks[name] for name in ("python", "packages", "opencv", "video", "faces", "models")} == {"ok"}
    assert (done.code != 0) == ("FIX" in marks.values())
    assert all(":" in line for line in done.out.splitlines() if line.startswith("FIX"))
