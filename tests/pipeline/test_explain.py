import dataclasses
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline import blocks
from pipeline.config import ClipConfig, PipelineConfig
from pipeline.explain import explain
from pipeline.filters import REASONS, FilterConfig
from pipeline.run import run
from tests.pipeline.hearing import HearsTones, speak


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
    for part in (
        "the old house",
        "wer 0.0000",
        "as written 0.0000",
        "english normaliser",
        "avg_logprob",
        "tone0.wav, 1.00 s",
    ):
        assert part in text


def test_rejected_clip_is_explained_in_every_split_that_has_its_id(finished: Path):
    first, second = explain(finished, "wrong")
    assert first.startswith("wrong: rejected, reason: wer")
    assert "2 substituted" in first
    assert "limit 0.1" in first
    assert second.startswith("wrong: kept (split test is not filtered)")


def test_clip_that_was_turned_away_by_its_length_is_explained(finished: Path):
    (text,) = explain(finished, "long")
    assert text.startswith("long: rejected, reason: too_long (before the teacher)\n")
    assert "lasts 31.00 s" in text
    assert "mine, split train" in text


def test_failure_is_explained(finished: Path):
    (text,) = explain(finished, "no")
    assert text.startswith("no: failed at stage read with AudioError, attempts: 1 (`run --retry")
    assert "its block is mine-train-0000" in text
    assert "no such file" in text


def test_unknown_id_is_refused(finished: Path):
    with pytest.raises(ValueError, match="no clip or utterance with the id 'nobody'"):
        explain(finished, "nobody")
    with pytest.raises(ValueError, match="'tonne0'; the nearest are 'tone0'"):
        explain(finished, "tonne0")


def test_every_rule_is_named_with_its_verdict(finished: Path):
    first, _ = explain(finished, "wrong")
    (failed,) = re.findall(r"fails +(.*)", first)
    (passed,) = re.findall(r"passes +(.*)", first)
    (off,) = re.findall(r"off +(.*)", first)
    assert failed == "wer"
    assert [*passed.split(", "), failed] == [
        reason for reason in REASONS if reason not in FilterConfig().switched_off
    ]
    assert set(off.split(", ")) == FilterConfig().switched_off


def test_what_would_be_can_be_asked(finished: Path):
    first, _ = explain(finished, "wrong", max_wer=0.7)
    assert first.startswith("wrong: kept, if max_wer 0.7\n")
    assert "shard      in none; its block is" in first  # where it is now
    (text,) = explain(finished, "tone0", min_seconds=2.0)
    assert text.startswith("tone0: rejected, reason: too_short, if min_seconds 2.0")
    with pytest.raises(ValueError, match=r"filter\.max_wer is -1"):
        explain(finished, "tone0", max_wer=-1)


def test_a_kept_clip_is_found_in_its_shard(finished: Path):
    (text,) = explain(finished, "tone0")
    assert re.search(
        r"shard +shards/mine-train-00000\.tar, members tone0\.flac and tone0\.json", text
    )


@pytest.fixture
def spoken(corpus, configure, tmp_path, monkeypatch):
    """Run over utterances of (said, reference) by one speaker; return the configuration."""
    monkeypatch.setattr(blocks, "_teacher", lambda *_: HearsTones())

    def make(*pairs: tuple[str, str], references: bool = True, **clips) -> PipelineConfig:
        lines = []
        for number, (said, text) in enumerate(pairs):
            speak(tmp_path / f"u{number}.wav", said)
            lines.append({"audio_filepath": f"u{number}.wav", "text": text, "speaker": "ann"})
        config = configure(
            corpus(*lines, references=references),
            clips=ClipConfig(**clips),
            max_failed_fraction=0.5,
        )
        run(config)
        return config

    return make


def test_a_pack_whose_utterances_fail_for_different_reasons_is_not_kept(spoken):
    config = spoken(("- - -", "pink pink"), ("red blue", "green white"), pack="before_label")
    (text,) = explain(config.output, "u0_and_1_more")
    assert text.startswith("u0_and_1_more: rejected, reason: empty_label, wer\n")
    assert "in none" in text


def test_an_utterance_of_a_pack_has_its_own_verdicts(spoken):
    config = spoken(("red blue", "red blue"), ("green", "white"), pack="before_label")
    (good,), (bad,), (both,) = (
        explain(config.output, name) for name in ("u0", "u1", "u0_and_1_more")
    )
    assert good.startswith("u0: kept\n")
    assert not re.search(r"fails +", good)
    assert "members u0_and_1_more.flac" in good
    assert bad.startswith("u1: rejected, reason: wer\n")
    assert re.findall(r"fails +(.*)", bad) == ["wer"]
    assert re.findall(r"label +(.*)", bad) == ["green"]
    assert re.search(r"pack +u0_and_1_more: u0 from 0\.00 s, u1 from 1\.00 s\n", bad)
    assert "shard      in none" in bad
    assert both.startswith("u0_and_1_more: kept, but for 1 of 2 utterances\n")
    assert "u1, 0.50 s, cut out: wer: 'white', label 'green'\n" in both
    assert len(re.findall(r"passes +", both)) == 2


def test_an_utterance_of_a_pack_without_references_shares_its_verdict(spoken):
    config = spoken(("red blue", ""), ("green", ""), references=False, pack="before_label")
    (text,) = explain(config.output, "u1")
    assert text.startswith("u0_and_1_more: kept\n")
    assert "u1 from 1.00 s; judged as one, because they have no references\n" in text


def test_an_utterance_that_was_packed_after_the_filter_is_found_in_its_shard(spoken):
    config = spoken(("red blue", "red blue"), ("green", "green"), pack="after_filter")
    for name in ("u0", "u1"):
        (text,) = explain(config.output, name)
        assert "members u0_and_1_more.flac and u0_and_1_more.json" in text


def test_a_clip_that_was_packed_after_the_filter_is_explained_utterance_by_utterance(spoken):
    config = spoken(("red blue", "red blue"), ("green", "green"), pack="after_filter")
    first, second = explain(config.output, "u0_and_1_more", max_wer=0.0)
    assert first.startswith("u0: kept, if max_wer 0.0\n")
    assert second.startswith("u1: kept, if max_wer 0.0\n")
    with pytest.raises(ValueError, match="no clip or utterance with the id 'u0_and_2_more'"):
        explain(config.output, "u0_and_2_more")


def test_a_clip_that_could_not_be_read_for_the_shard_is_not_said_to_be_in_it(spoken, tmp_path):
    config = spoken(("red blue", "red blue"), ("green", "green"))
    audio = tmp_path / "u1.wav"
    audio.write_bytes(b"x" * audio.stat().st_size)
    run(dataclasses.replace(config, filter=FilterConfig(max_wer=0.2)))
    (text,) = explain(config.output, "u1")
    assert "in none; its block is mine-train-00000, whose shard lacks 1 that could no" in text
    assert "members u0.flac" in explain(config.output, "u0")[0]


def test_a_half_written_part_is_refused(finished: Path):
    part = next(finished.glob("ledger/*/mine-train-00000.parquet"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged or half-written"):
        explain(finished, "tone0")


def test_a_part_of_another_schema_is_refused_by_its_path(finished: Path):
    part = next(finished.glob("ledger/*/mine-train-00000.parquet"))
    pq.write_table(pq.read_table(part).drop_columns(["avg_logprob"]), part)
    with pytest.raises(ValueError, match=r"train-00000\.parquet is of a release.*avg_logprob"):
        explain(finished, "tone0")


def test_what_is_labelled_is_explained_before_the_rest_is(finished: Path):
    next(finished.glob("ledger/*/mine-test-00000.parquet")).unlink()
    assert explain(finished, "tone0")[0].startswith("tone0: kept")
    with pytest.raises(ValueError, match=r"'nobody'.*1 of \d blocks are not labelled yet"):
        explain(finished, "nobody")


@pytest.mark.parametrize("name", ["plan.json", "config.yaml"])
def test_a_damaged_run_is_refused_by_the_file(finished: Path, name):
    (finished / name).write_text("{")
    with pytest.raises(ValueError, match=re.escape(str(finished / name))):
        explain(finished, "tone0")
