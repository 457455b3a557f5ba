import dataclasses
import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from pipeline import corpora
from pipeline.config import ColumnsConfig, CorpusConfig
from pipeline.corpora import CorpusError, Utterance
from pipeline.ledger import Failure
from pipeline.schema import to_json
from tests.pipeline.conftest import Corpus
from tests.pipeline.corpora.material import check_positions, configured, read_all


def test_manifest_line_with_every_field(corpus: Corpus, tmp_path: Path):
    line = {
        "audio_filepath": "wav/a.wav",
        "text": "hello",
        "id": 7,
        "duration": 2,
        "offset": 1.5,
        "speaker": "ann",
        "lang": "de-DE",
        "surplus": True,
    }
    (utterance,) = corpora.read(corpus(line))
    assert utterance == Utterance(
        id="7",
        corpus="mine",
        split="train",
        language="de",
        licence="cc0-1.0",
        speaker="ann",
        recording="wav/a.wav",
        path=str(tmp_path / "wav/a.wav"),
        start_seconds=1.5,
        duration_seconds=2.0,
        reference="hello",
    )


def test_manifest_line_with_the_two_required_fields(corpus: Corpus):
    (utterance,) = corpora.read(corpus({"audio_filepath": "wav/a.b.wav", "text": ""}))
    assert isinstance(utterance, Utterance)
    assert utterance.id == "wav/a.b"
    assert (utterance.language, utterance.speaker, utterance.reference) == ("en", "", "")
    assert (utterance.start_seconds, utterance.duration_seconds) == (0.0, None)


def test_spans_of_one_recording_get_different_ids(corpus: Corpus):
    lines = [{"audio_filepath": "a.wav", "text": "x", "offset": o} for o in (0, 1.25)]
    assert [u.id for u in corpora.read(corpus(*lines))] == ["a-0000000", "a-0001250"]


def test_absolute_audio_path_stays_absolute(corpus: Corpus):
    (utterance,) = corpora.read(corpus({"audio_filepath": "/data/a.wav", "text": "x"}))
    assert isinstance(utterance, Utterance)
    assert utterance.path == "/data/a.wav"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "line 2: no JSON object on one line"),
        ("[1]", "expected a JSON object"),
        ({"text": "x"}, "audio_filepath is missing"),
        ({"audio_filepath": "", "text": "x"}, "audio_filepath is empty"),
        ({"audio_filepath": "a.wav"}, "text is missing"),
        ({"audio_filepath": "a.wav", "text": None}, "text is missing; the field is there, without"),
        ({"audio_filepath": "a.wav", "text": ["x"]}, "text must be text"),
        ({"audio_filepath": "a.wav", "text": "x", "id": ""}, "id is empty"),
        ({"audio_filepath": "a.wav", "text": "x", "duration": "3"}, "duration must be seconds"),
        ({"audio_filepath": "a.wav", "text": "x", "duration": 0}, "duration is 0"),
        ({"audio_filepath": "a.wav", "text": "x", "offset": -1}, "offset must be seconds"),
        ('{"audio_filepath": "a.wav", "text": "x", "offset": NaN}', "offset must be seconds"),
        ({"audio_filepath": "a.wav", "text": "x", "offset": 1e306}, "offset must be seconds"),
        ({"audio_filepath": "a.wav", "text": "x", "duration": 10**400}, "duration must be seconds"),
        ({"audio_filepath": "a.wav", "text": "x", "lang": "klingonese"}, "is not known"),
        ({"audio_filepath": "a.wav", "text": "hi \ud83d"}, "text is not valid Unicode"),
        ({"audio_filepath": "a\udce9.wav", "text": "x"}, "audio_filepath is not valid Unicode"),
        ({"audio_filepath": "a.wav", "text": "x", "id": "\ud83d"}, "id is not valid Unicode"),
        ({"audio_filepath": "a.wav", "\ud83d": "x"}, "the fields are audio_filepath, \\ud83d"),
    ],
)
def test_bad_line_is_a_failure_and_the_others_are_read(corpus: Corpus, line, message: str):
    good = {"audio_filepath": "a.wav", "text": "x"}
    first, bad, last = corpora.read(corpus(good, line, good))
    assert isinstance(first, Utterance)
    assert isinstance(last, Utterance)
    assert isinstance(bad, Failure)
    assert (bad.id, bad.stage, bad.error) == ("mine-train-line-2", "plan", "bad_line")
    assert message in bad.message
    to_json(bad).encode()  # or the failures could not be written


def test_line_that_is_not_utf8_is_a_failure(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"audio_filepath": "a.wav", "text": "\xff"}\n')
    (bad,) = corpora.read(
        CorpusConfig(name="m", kind="manifest", path=str(path), licence="cc0-1.0")
    )
    assert isinstance(bad, Failure)


def test_blank_lines_are_no_entries(corpus: Corpus):
    line = json.dumps({"audio_filepath": "a.wav", "text": "x"})
    assert len(list(corpora.read(corpus("", line, "  ", line)))) == 2


def test_reading_goes_on_from_any_position(corpus: Corpus):
    config = corpus(*({"audio_filepath": f"{i}.wav", "text": "ß"} for i in range(5)), "", "{oops")
    check_positions(config)


@pytest.mark.parametrize("name", ["m.jsonl", "m.jsonl.gz"])
def test_positions_hold_with_a_byte_order_mark_and_gzipped(tmp_path: Path, name: str):
    line = b'{"audio_filepath": "a.wav", "text": "x"}\n'
    data = b"\xef\xbb\xbf" + 4 * line
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    entries = check_positions(configured("manifest", tmp_path / name))
    assert all(isinstance(entry, Utterance) for entry in entries)


def test_gzip_bomb_is_one_bad_line_and_costs_no_memory(tmp_path: Path):
    path = tmp_path / "m.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(200):
            file.write(bytes(2**20))
        file.write(b'\n{"audio_filepath": "a.wav", "text": "x"}\n')
    tracemalloc.start()
    bad, good = corpora.read(configured("manifest", path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(bad, Failure)
    assert "longer than" in bad.message
    assert isinstance(good, Utterance)
    assert peak < 100 * 2**20


def test_damaged_gzip_is_an_error_that_names_the_corpus(tmp_path: Path):
    data = gzip.compress(b'{"audio_filepath": "a.wav", "text": "x"}\n' * 1000)
    (tmp_path / "m.jsonl.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(CorpusError, match="'mine'.*damaged gzip"):
        list(corpora.read(configured("manifest", tmp_path / "m.jsonl.gz")))


def test_corpus_without_references_needs_no_text(corpus: Corpus):
    config = corpus({"audio_filepath": "a.wav"}, {"audio_filepath": "b.wav", "text": "x"})
    utterances = read_all(dataclasses.replace(config, references=False))
    assert [u.reference for u in utterances] == [None, None]


def test_columns_licence_and_channel_come_from_the_line_if_it_has_them(corpus: Corpus):
    columns = ColumnsConfig(audio="wav", text="words", start="from", end="to", licence="rights")
    line = {"wav": "a.wav", "words": "x", "from": 1, "to": 3.5, "rights": "cc0-1.0", "channel": 1}
    config = corpus(line, {"wav": "b.wav", "words": "y"}, columns=columns, licence="cc-by-4.0")
    first, second = read_all(config)
    assert (first.start_seconds, first.duration_seconds, first.channel) == (1.0, 2.5, 1)
    assert (first.licence, second.licence) == ("cc0-1.0", "cc-by-4.0")
    assert first.id == "a-0001000-1"


def test_times_in_milliseconds_are_told_by_the_name(corpus: Corpus):
    columns = ColumnsConfig(duration="duration_ms", start="offset [ms]")
    line = {"audio_filepath": "a.wav", "text": "x", "duration_ms": 1500, "offset [ms]": 20}
    (utterance,) = read_all(corpus(line, columns=columns))
    assert (utterance.start_seconds, utterance.duration_seconds) == (0.02, 1.5)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"start": 5, "end": 3}, "the segment ends at 3 s but starts at 5 s"),
        ({"start": 5, "end": 5}, "the segment ends at 5 s but starts at 5 s"),
        ({"channel": -1}, "must be a channel"),
        ({"channel": "left"}, "must be a channel"),
        ({"channel": True}, "must be a channel"),
    ],
)
def test_segment_that_cannot_be_is_a_failure(corpus: Corpus, line: dict, message: str):
    columns = ColumnsConfig(start="start", end="end")
    (bad,) = corpora.read(corpus({"audio_filepath": "a.wav", "text": "x", **line}, columns=columns))
    assert isinstance(bad, Failure)
    assert message in bad.message


def test_overlapping_segments_are_two_utterances(corpus: Corpus):
    spans = [(0.0, 5.0), (3.0, 4.0)]
    lines = [{"audio_filepath": "a.wav", "text": "x", "offset": o, "duration": d} for o, d in spans]
    assert [u.id for u in read_all(corpus(*lines))] == ["a-0000000", "a-0003000"]


def test_ids_may_hold_dots_slashes_and_any_script(corpus: Corpus):
    names = ["a.b/c.d", "../up", "привет мир", "日本/語", "x" * 300]
    lines = [{"audio_filepath": "a.wav", "text": "x", "id": name} for name in names]
    assert [u.id for u in read_all(corpus(*lines))] == names


def test_line_nested_too_deep_is_a_failure(corpus: Corpus):
    (bad,) = corpora.read(corpus("[" * 200_000))
    assert isinstance(bad, Failure)


def test_audio_lies_in_the_folder_that_is_named(corpus: Corpus):
    config = corpus({"audio_filepath": "a.wav", "text": "x"}, audio="s3://bucket/clips")
    assert read_all(config)[0].path == "s3://bucket/clips/a.wav"


def test_missing_manifest_says_where_it_was_looked_for(tmp_path: Path):
    config = CorpusConfig(name="m", kind="manifest", path="no/such.jsonl", licence="cc0-1.0")
    with pytest.raises(FileNotFoundError, match=r"'m'.*no/such\.jsonl.*folder the command runs in"):
        list(corpora.read(config))


def test_embedded_corpus_has_readable_recordings():
    config = CorpusConfig(name="e", kind="embedded", licence="cc0-1.0", split="test")
    found = list(corpora.read(config))
    assert len(found) > 100
    assert all(isinstance(u, Utterance) and Path(u.path).is_file() for u in found)


def test_unknown_split_of_the_embedded_corpus_is_refused():
    config = CorpusConfig(name="e", kind="embedded", licence="cc0-1.0", split="dev")
    with pytest.raises(ValueError, match=r"no split 'dev'; choose from train, validation, test"):
        list(corpora.read(config))


def test_a_signed_link_is_read_and_its_signature_is_in_no_name(corpus: Corpus):
    link = "https://b.s3.amazonaws.com/a.flac"
    signed = f"{link}?X-Amz-Credential=AK%2F2026&X-Amz-Signature=0f.1"
    (utterance,) = corpora.read(corpus({"audio_filepath": signed, "text": "a"}))
    assert isinstance(utterance, Utterance)
    assert utterance.path == signed
    assert utterance.recording == link
    assert utterance.id == "https://b.s3.amazonaws.com/a"
