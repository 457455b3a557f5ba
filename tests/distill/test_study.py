import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from distill.config import ValidationConfig
from distill.data_config import DataConfig, Stage
from distill.study import interval, make_arms, rates, resampled, study, unseen
from distill.study_config import StudyConfig
from tests.distill.material import make_clips, make_sample, write_dataset


@pytest.fixture
def config(teacher_folder: Path, tmp_path: Path) -> StudyConfig:
    """Train on one speaker, test on another and on the same."""
    train = make_clips("train")
    test = [
        (dataclasses.replace(sample, speaker=speaker), audio)
        for speaker, (sample, audio) in zip(("tone", "other"), make_clips("test"), strict=False)
    ]
    shards = [str(write_dataset(tmp_path / "data", train, test))]
    return StudyConfig(
        output=str(tmp_path / "study"),
        data=DataConfig(
            shards=shards,
            batch_seconds=30.0,
            num_workers=0,
            curriculum=[Stage(max_seconds=3.0, full_windows=0.0)],
        ),
        test=ValidationConfig(shards=shards, split="test"),
        teacher=str(teacher_folder),
        decoder_layers=[1, 2, 8],
        thresholds=[0.1, 1.0],
        corrupted=shards,
        shares=[0.9, 1.0],
        seeds=[0, 1],
        max_steps=1,
        bootstrap_samples=20,
        device="cpu",
    )


def test_students_differ_from_the_compared_one_in_one_thing(config: StudyConfig):
    arms = {arm.name: arm for arm in make_arms(config, 4)}
    assert list(arms) == [
        "layers-1",
        "layers-2",
        "labels-only",
        "threshold-10",
        "threshold-100",
        "data-90",
    ]
    base = arms["layers-2"].config
    assert arms["labels-only"].config.loss.weights == (1.0, 0.0, False)
    assert arms["labels-only"].config.teacher is None
    assert arms["threshold-10"].config.data.filter.max_wer == 0.1
    assert arms["threshold-100"].config.data.filter.max_wer is None
    assert arms["data-90"].config.data.filter.share == 0.9
    for name in ("threshold-100", "data-90"):
        changed = dataclasses.asdict(arms[name].config)
        same = dataclasses.asdict(base)
        assert {k for k in same if same[k] != changed[k]} <= {"output", "data"}


def test_a_study_of_more_layers_than_the_teacher_has_is_refused(config: StudyConfig):
    with pytest.raises(ValueError, match="the teacher has 1 decoder layers"):
        list(make_arms(config, 1))


def test_clips_of_speakers_in_training_are_left_out():
    clips = [(make_sample(id=s, speaker=s), b"") for s in ("a", "b", "")]
    left, left_out = unseen(clips, {"b"})
    assert [sample.speaker for sample, _ in left] == ["a", ""]
    assert left_out == 1
    with pytest.raises(ValueError, match="split the corpus by speaker"):
        unseen(clips[:2], {"a", "b"})


def test_a_rate_is_errors_over_words_for_each_seed():
    counts = np.array([[(1, 10), (3, 10)], [(0, 10), (2, 10)]])
    assert rates(counts).tolist() == [0.2, 0.1]


def test_an_interval_holds_the_rate_and_is_none_where_nothing_varies():
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 20, size=(1, 200))
    errors = rng.binomial(lengths, [[0.1], [0.12], [0.14]])
    varied = np.stack([errors, np.broadcast_to(lengths, errors.shape)], axis=2)
    even = np.full((3, 200, 2), (1, 10))
    counts = {"varied": varied, "even": even}
    draws = resampled(counts, np.arange(200) // 10, 300)
    low, high = interval(draws["varied"])
    assert low < rates(varied).mean() < high
    assert 0.01 < high - low < 0.1
    assert interval(draws["even"]) == pytest.approx((0.1, 0.1))
    assert interval(draws["varied"] - draws["varied"]) == (0.0, 0.0)


def test_a_study_makes_the_table_and_trains_nothing_twice(
    config: StudyConfig, monkeypatch: pytest.MonkeyPatch
):
    config = dataclasses.replace(config, decoder_layers=[2], thresholds=[1.0], seeds=[0])
    results = study(config)
    assert [arm.name for arm in results.arms] == [
        "layers-2",
        "labels-only",
        "threshold-100",
        "data-90",
    ]
    assert (results.test_clips, results.test_speakers, results.seen_speakers_left_out) == (1, 1, 1)
    compared = results.arms[0]
    assert compared.difference == compared.difference_low == compared.difference_high == 0.0
    output = Path(config.output)
    assert json.loads((output / "study.json").read_text()) == dataclasses.asdict(results)
    page = (output / "study.md").read_text()
    for part in ("**layers-2**", "labels-only", "## By threshold", "Table 21", "Made on"):
        assert part in page

    def fail(*_arguments, **_options):
        raise AssertionError("trained or heard again")

    monkeypatch.setattr("distill.trainer.DistillationTrainer.train", fail)
    monkeypatch.setattr("distill.train.init", fail)
    again = study(config)
    assert [arm.seeds for arm in again.arms] == [arm.seeds for arm in results.arms]
