import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.schema import (
    SCHEMA_VERSION,
    ClipUtterance,
    Index,
    Sample,
    Segment,
    ShardEntry,
    Totals,
    from_dict,
    from_json,
    model_path,
    read_index,
    sample_key,
    to_json,
)

TEXT = st.text(max_size=10)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
SAMPLES = st.builds(
    Sample,
    **{name: TEXT for name, field in Sample.__annotations__.items() if field is str},
    **{name: NUMBER for name, field in Sample.__annotations__.items() if field is float},
    utterances=st.lists(
        st.builds(ClipUtterance, id=TEXT, start=NUMBER, duration=NUMBER, reference=TEXT), max_size=2
    ).map(tuple),
    segments=st.lists(st.builds(Segment, start=NUMBER, end=NUMBER, text=TEXT), max_size=2).map(
        tuple
    ),
    tokens=st.lists(st.integers(0, 60_000), max_size=4).map(tuple),
    wer=st.none() | NUMBER,
    cer=st.none() | NUMBER,
    substitutions=st.none() | st.integers(0, 99),
    deletions=st.none() | st.integers(0, 99),
    insertions=st.none() | st.integers(0, 99),
    truncated=st.booleans(),
)

UTTERANCE = ClipUtterance(id="u", start=0.0, duration=1.5, reference="naïve")

INDEX = Index(
    schema_version=SCHEMA_VERSION,
    created_with="test",
    teacher={"model": "embedded", "batch_size": 4},
    decoding={},
    clips={},
    filter={"splits": ["train"]},
    label_key="l",
    shard_key="s",
    shards=(
        ShardEntry(
            name="a.tar",
            corpus="c",
            split="train",
            num_samples=1,
            duration_seconds=1.5,
            size_bytes=10,
            sha256="0",
        ),
    ),
    totals=Totals(
        planned=3,
        kept=1,
        rejected={"wer": 1},
        failed={"read": 1},
        hours_planned=0.1,
        hours_kept=0.05,
        teacher_seconds=1.0,
        wall_seconds=1.0,
        rtfx=360.0,
    ),
)


@given(SAMPLES)
def test_a_sample_survives_json(sample):
    assert from_json(Sample, to_json(sample)) == sample


def test_json_is_the_same_text_whatever_the_order_of_fields():
    segment = Segment(text="naïve", end=1.5, start=0)
    assert to_json(segment) == '{"end":1.5,"start":0,"text":"naïve"}'


def test_a_field_that_came_later_may_be_missing_in_what_is_read():
    text = '{"duration":1.5,"id":"u","reference":"naïve","start":0.0}'
    assert from_json(ClipUtterance, text) == UTTERANCE
    assert UTTERANCE.wer is None


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_does_not_have_is_refused(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(replace(UTTERANCE, start=number))


def test_an_unknown_field_is_ignored():
    text = '{"duration":1.5,"id":"u","reference":"naïve","start":0.0,"mood":"good"}'
    assert from_json(ClipUtterance, text) == UTTERANCE


def test_missing_fields_are_refused_by_name():
    with pytest.raises(ValueError, match=r"ClipUtterance lacks the field\(s\) duration, reference"):
        from_json(ClipUtterance, '{"id":"u","start":0}')


def test_a_whole_number_is_accepted_as_seconds():
    start = from_dict(ClipUtterance, {"id": "u", "start": 2, "duration": 1, "reference": ""}).start
    assert isinstance(start, float)
    assert start == 2.0


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", 7), ("id", None), ("start", "0"), ("start", True), ("start", None)],
)
def test_a_mistyped_field_is_refused_by_name(field, value):
    fields = {"id": "u", "start": 0.0, "duration": 1.0, "reference": ""} | {field: value}
    with pytest.raises(ValueError, match=rf"ClipUtterance\.{field}: expected \w+, got"):
        from_dict(ClipUtterance, fields)


def test_a_mistyped_item_is_named_with_its_place():
    fields = json.loads(to_json(INDEX))
    fields["shards"][0]["num_samples"] = "many"
    with pytest.raises(ValueError, match=r"Index\.shards\[0\]\.num_samples: expected int"):
        from_dict(Index, fields)


def test_a_list_is_no_object():
    with pytest.raises(ValueError, match="Totals: expected an object"):
        from_json(Totals, "[]")


@pytest.mark.parametrize("name", ["a", "A-b_9", "x" * 80])
def test_a_safe_id_is_its_own_key(name):
    assert sample_key(name) == name


@given(st.text(max_size=200))
def test_every_key_fits_webdataset_and_tar(clip_id):
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}", sample_key(clip_id))


@pytest.mark.parametrize(
    ("one", "other"), [("a.b", "a_b"), ("a.b", "a/b"), ("x" * 99 + "1", "x" * 99 + "2"), ("é", "è")]
)
def test_ids_that_look_alike_get_different_keys(one, other):
    assert sample_key(one) != sample_key(other)


def test_an_index_is_read_back(tmp_path):
    (tmp_path / "index.json").write_text(to_json(INDEX), encoding="utf-8")
    assert read_index(tmp_path) == INDEX


def test_a_folder_without_an_index_is_not_finished(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a finished dataset"):
        read_index(tmp_path)


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, None, "1"])
def test_an_index_of_another_version_is_refused(tmp_path, version):
    fields = json.loads(to_json(INDEX)) | {"schema_version": version}
    (tmp_path / "index.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=f"schema_version {version}; this release reads"):
        read_index(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_index_is_refused_by_its_path(tmp_path, text):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index\.json is damaged"):
        read_index(tmp_path)


def test_only_the_embedded_model_has_a_path_of_its_own():
    assert model_path("openai/whisper-tiny") == "openai/whisper-tiny"
    assert model_path("embedded").endswith("pipeline/embedded/teacher")
