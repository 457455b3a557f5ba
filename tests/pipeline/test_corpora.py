import json
from pathlib import Path

import pytest

from pipeline import corpora
from pipeline.config import CorpusConfig
from pipeline.corpora import Utterance
from pipeline.ledger import Failure
from tests.pipeline.conftest import Corpus


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
        ("{oops", "line 2"),
        ("[1]", "expected a JSON object"),
        ({"text": "x"}, "audio_filepath is missing"),
        ({"audio_filepath": "", "text": "x"}, "audio_filepath is empty"),
        ({"audio_filepath": "a.wav"}, "text is missing"),
        ({"audio_filepath": "a.wav", "text": None}, "text is missing"),
        ({"audio_filepath": "a.wav", "text": ["x"]}, "text must be text"),
        ({"audio_filepath": "a.wav", "text": "x", "id": ""}, "id is empty"),
        ({"audio_filepath": "a.wav", "text": "x", "duration": "3"}, "duration must be seconds"),
        ({"audio_filepath": "a.wav", "text": "x", "duration": 0}, "duration is 0"),
        ({"audio_filepath": "a.wav", "text": "x", "offset": -1}, "offset must be seconds"),
        ('{"audio_filepath": "a.wav", "text": "x", "offset": NaN}', "offset must be seconds"),
        ({"audio_filepath": "a.wav", "text": "x", "lang": "klingonese"}, "is not known"),
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


def test_slice_is_what_the_whole_has_there(corpus: Corpus):
    config = corpus(*({"audio_filepath": f"{i}.wav", "text": "x"} for i in range(5)), "{oops")
    whole = list(corpora.read(config))
    assert list(corpora.read(config, 2, 4)) == whole[2:4]
    assert list(corpora.read(config, 4)) == whole[4:]


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
