"""`tellframe webcam`, as far as a machine without a camera goes."""

import pytest

from tests.cli.run import assert_refused, outputs, tellframe


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--device", "97"), 3),
        (("--device", "/dev/null"), 3),
        (("--device", "97", "--show"), 3),
        (("--device", "front"), 2),
        (("--device", "-1"), 2),
        (("--size", "big"), 2),
        (("--size", "0x720"), 2),
        (("--fps", "0"), 2),
        (("--fps", "nan"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_camera_that_is_not_there_is_refused_in_one_line(tmp_path, out, arguments, code):
    assert_refused(tellframe("webcam", *arguments, *outputs(out), cwd=tmp_path), code)
    assert list(out.iterdir()) == []
