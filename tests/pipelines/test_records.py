import csv
import io
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detector.types import FaceVerdict, Frame, FrameResult, Label, Reason, Timing, Verdict
from pipelines.records import CSV_HEADER, csv_lines, csv_rows, frame_record, json_line
from tests.pipelines.results import make_face, make_picture, make_result

TWO_FACES = (make_face(1, Label.FAKE, (-3.25, 20.0, 50.04, 70.0)), make_face(4, Label.REAL))


def no_constant(name):
    raise AssertionError(f"{name} is not JSON")


def test_a_record_has_exactly_the_keys_of_the_schema_in_order():
    result = make_result(Label.FAKE, index=3, faces=TWO_FACES, dropped=2)
    assert json_line(result, "a b.mp4") == (
        '{"schema":"tellframe.frame/1","path":"a b.mp4","index":3,"pts_s":0.12,"verdict":"FAKE",'
        '"reason":"score above the fake threshold","p_fake":0.91,"faces":['
        '{"track":1,"xyxy":[-3.2,20.0,50.0,70.0],"p_fake":0.91,"verdict":"FAKE",'
        '"reason":"score above the fake threshold"},'
        '{"track":4,"xyxy":[10.0,20.0,50.0,70.0],"p_fake":0.08,"verdict":"REAL",'
        '"reason":"score below the real threshold"}],'
        '"timing_ms":{"find":8.0,"crop":0.5,"score":3.5,"total":12.4},'
        '"dropped":2,"fresh":true,"model":"lite0-int8","find_every":1,"score_every":1}\n'
    )


def test_a_frame_without_a_face_has_null_and_an_empty_list():
    record = frame_record(make_result(Label.NO_FACE), "x")
    assert record["verdict"] == "NO_FACE"
    assert record["p_fake"] is None
    assert record["faces"] == []


def test_numbers_are_rounded_and_zero_has_no_sign():
    face = make_face(xyxy=(-0.04, 1 / 3, 2 / 3, 1e6), label=Label.UNSURE, p_fake=1 / 3)
    timing = Timing(1 / 3, 0.0, 2 / 3, -0.0001)
    record = frame_record(make_result(Label.UNSURE, faces=(face,), pts_ns=1_234_567_891, timing=timing), "x")
    assert record["pts_s"] == 1.234568
    assert record["p_fake"] == 0.333333
    assert record["faces"][0]["xyxy"] == [0.0, 0.3, 0.7, 1e6]
    assert "-0" not in json.dumps(record)
    assert record["timing_ms"] == {"find": 0.333, "crop": 0.0, "score": 0.667, "total": 0.0}


def test_numbers_of_numpy_are_plain_numbers_in_the_record():
    p = np.float32(0.25)
    face = FaceVerdict(np.int64(1), tuple(np.float32([1, 2, 3, 4])), Label.REAL, Reason.BELOW_REAL, p, p)
    verdict = Verdict(Label.REAL, Reason.BELOW_REAL, p, (face,))
    frame = Frame(make_picture(), np.int64(5), np.int64(10), 0)
    timing = Timing(*np.float32([1, 2, 3, 4]))
    record = json.loads(json_line(FrameResult(frame, verdict, timing, np.int64(0), np.bool_(True), "m"), "x"))
    assert record["p_fake"] == 0.25
    assert record["fresh"] is True


numbers = st.floats(allow_nan=True, allow_infinity=True)
probabilities = st.none() | st.floats(0, 1)


@st.composite
def results(draw):
    faces = draw(
        st.lists(
            st.builds(
                FaceVerdict,
                track=st.integers(1, 1000),
                xyxy=st.tuples(numbers, numbers, numbers, numbers),
                label=st.sampled_from([Label.REAL, Label.FAKE, Label.UNSURE]),
                reason=st.sampled_from(Reason),
                p_fake=probabilities,
                p_frame=probabilities,
            ),
            max_size=3,
        )
    )
    label = draw(st.sampled_from([Label.REAL, Label.FAKE, Label.UNSURE])) if faces else Label.NO_FACE
    verdict = Verdict(label, draw(st.sampled_from(Reason)), draw(probabilities), tuple(faces))
    frame = Frame(make_picture(2, 2), draw(st.integers(0, 10**9)), draw(st.integers(0, 10**18)), 0)
    timing = Timing(draw(numbers), draw(numbers), draw(numbers), draw(numbers))
    return FrameResult(frame, verdict, timing, draw(st.integers(0, 9)), draw(st.booleans()), draw(st.text()))


# Names as the file system gives them, bytes that are no UTF-8 included.
paths = st.text() | st.binary().map(lambda name: name.decode("utf-8", "surrogateescape"))


@given(results(), paths)
def test_any_result_is_one_line_of_strict_json(result, path):
    line = json_line(result, path)
    assert line.isascii()
    assert line.count("\n") == 1
    record = json.loads(line, parse_constant=no_constant)
    assert record == frame_record(result, path)
    json.dumps(record, ensure_ascii=False).encode("utf-8")


@given(results(), paths)
def test_the_rows_of_any_result_read_back_as_its_record(result, path):
    record = frame_record(result, path)
    text = csv_lines([list(CSV_HEADER), *csv_rows(result, path)])
    text.encode("utf-8")
    # csv cannot quote its way around a carriage return when lines are split first: newline="" as its manual says.
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == max(1, len(record["faces"]))
    for row in rows:
        assert row["path"] == record["path"]
        assert row["p_fake"] == ("" if record["p_fake"] is None else str(record["p_fake"]))
        assert row["fresh"] == str(record["fresh"]).lower()
        assert row["model"] == record["model"]
    for row, face in zip(rows, record["faces"], strict=False):
        box = [None if row[name] == "" else float(row[name]) for name in ("x1", "y1", "x2", "y2")]
        assert box == face["xyxy"]
        assert (row["track"], row["face_verdict"]) == (str(face["track"]), face["verdict"])


def test_csv_has_one_row_a_face_and_one_for_a_frame_without():
    two = csv_rows(make_result(Label.FAKE, faces=TWO_FACES), "x")
    none = csv_rows(make_result(Label.NO_FACE), "x")
    assert [row[CSV_HEADER.index("track")] for row in two] == ["1", "4"]
    assert len(none) == 1
    assert none[0][CSV_HEADER.index("track") : CSV_HEADER.index("find_ms")] == [""] * 8
    assert {len(row) for row in two + none} == {len(CSV_HEADER)}
