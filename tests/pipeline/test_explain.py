from pathlib import Path

import pytest

from pipeline.explain import explain
from pipeline.run import run


@pytest.fixture
def finished(corpus, configure, tones) -> Path:
    train = corpus(
        *tones(1),
        {"audio_filepath": "tone0.wav", "text": "the new car", "id": "wrong"},
        {"audio_filepath": "tone0.wav", "text": "x", "id": "long", "duration": 31},
        {"audio_filepath": "no.wav", "text": "x"},
    )
    test = corpus({"audio_filepath": "tone0.wav", "text": "x", "id": "wrong"}, split="test")
    config = configure(train, test, max_failed_fraction=0.5)
    run(config)
    return Path(config.output)


def test_kept_clip_is_explained_with_its_evidence(finished: Path):
    (text,) = explain(finished, "tone0")
    assert text.startswith("tone0: kept\n")
    for part in ("the old house", "wer 0.0000", "avg_logprob", "tone0.wav, 1.00 s"):
        assert part in text


def test_rejected_clip_is_explained_in_every_split_that_has_its_id(finished: Path):
    first, second = explain(finished, "wrong")
    assert first.startswith("wrong: rejected, reason: wer")
    assert "2 substituted" in first
    assert "limit 0.1" in first
    assert second.startswith("wrong: kept (split test is not filtered)")


def test_clip_that_was_turned_away_by_its_length_is_explained(finished: Path):
    (text,) = explain(finished, "long")
    assert text.startswith("long: rejected, reason: too_long\n  lasts 31.00 s")


def test_failure_is_explained(finished: Path):
    (text,) = explain(finished, "no")
    assert text.startswith("no: failed at stage read with AudioError")
    assert "no such file" in text


def test_unknown_id_is_refused(finished: Path):
    with pytest.raises(ValueError, match="no clip or utterance with the id 'nobody'"):
        explain(finished, "nobody")
