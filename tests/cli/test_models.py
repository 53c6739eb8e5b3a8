"""`tellframe models`."""

import hashlib
import json
from pathlib import Path

from tests.cli.run import assert_quiet, assert_refused, tellframe


def test_the_list_is_true_of_the_files(tmp_path):
    done = tellframe("models", "--json", "-", cwd=tmp_path)
    assert_quiet(done)
    (models,) = done.records()
    assert models
    for model in models:
        data = Path(model["path"]).read_bytes()
        assert model["kind"] in ("dense", "ptq", "hqp")
        assert model["sha256"] == hashlib.sha256(data).hexdigest()
        assert model["bytes"] == len(data)
        assert model["input_size"] > 0
    assert sum(model["default"] for model in models) == 1


def test_people_get_a_line_a_model_and_scripts_a_file(tmp_path):
    for_people = tellframe("models", cwd=tmp_path)
    into_a_file = tellframe("models", "--json", "models.json", cwd=tmp_path)
    assert_quiet(for_people)
    assert_quiet(into_a_file)
    assert into_a_file.out == ""
    names = [model["name"] for model in json.loads((tmp_path / "models.json").read_text())]
    assert [name in line for name, line in zip(names, for_people.out.splitlines(), strict=True)] == [True] * len(names)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    assert_refused(tellframe("models", "--json", "missing/models.json", cwd=tmp_path), 6)
    for arguments in ((), ("--json", "-")):
        assert_refused(tellframe("models", *arguments, cwd=tmp_path, stdout="/dev/full"), 6)
