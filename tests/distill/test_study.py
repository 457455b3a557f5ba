import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from distill.config import ValidationConfig
from distill.data_config import DataConfig, Stage
from distill.encoder_memory import EncoderMemory
from distill.student import load_model
from distill.study import Comparisons, StudyResults, study, training_speakers, unseen
from distill.study_arms import Arm, make_arms, pairs
from distill.study_config import StudyConfig
from distill.study_judging import Listener, weight_bytes
from distill.study_training import make_student_of, train_all
from distill.trainer import DistillationTrainer
from distill.validation import validation_clips
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
        speed_rounds=1,
        device="cpu",
    )


def by_name(arms: Iterator[Arm]) -> dict[str, Arm]:
    return {arm.name: arm for arm in arms}


def changed(arm: Arm, base: Arm) -> set[str]:
    one, other = (dataclasses.asdict(a.config) for a in (arm, base))
    return {name for name in one if one[name] != other[name]}


def test_students_differ_from_the_compared_one_in_one_thing(config: StudyConfig):
    arms = by_name(make_arms(config, 4))
    assert list(arms) == [
        "layers-1",
        "layers-2",
        "labels-only",
        "threshold-10",
        "threshold-100",
        "data-90",
    ]
    assert arms["labels-only"].config.loss.weights == (1.0, 0.0, False)
    assert arms["labels-only"].config.teacher is None
    assert arms["threshold-10"].config.data.filter.max_wer == 0.1
    assert arms["threshold-100"].config.data.filter.max_wer is None
    assert arms["data-90"].config.data.filter.share == 0.9
    for name in ("threshold-100", "data-90"):
        assert changed(arms[name], arms["layers-2"]) <= {"output", "data"}


def test_matchings_and_grids_change_one_thing_each(config: StudyConfig):
    config = dataclasses.replace(
        config,
        decoder_layers=[],
        corrupted=[],
        shares=[],
        zero_shot=True,
        matchings=["uniform", "random"],
        quantised=["w4"],
        quantised_kinds=["rounded", "trained", "labels-only", "matched"],
        max_steps=9,
    )
    arms = by_name(make_arms(config, 4))
    base = arms["layers-2"]
    differing = {name: changed(arm, base) - {"output"} for name, arm in arms.items()}
    assert differing == {
        "layers-2": set(),
        "zero-shot": set(),
        "labels-only": {"loss", "teacher"},
        "matching-uniform": {"hidden"},
        "matching-random": {"hidden"},
        "w4-rounded": set(),
        "w4-trained": {"quantization"},
        "w4-labels-only": {"quantization", "loss", "teacher"},
        "w4-matched": {"quantization", "hidden"},
    }
    assert not arms["zero-shot"].trained
    rounded = arms["w4-rounded"]
    assert rounded.rounded == "w4"
    assert rounded.config.output == base.config.output  # of the very students
    grid = arms["w4-trained"].config.quantization
    assert grid is not None
    assert (grid.start_step, grid.ramp_steps) == (3, 3)
    drawn = [arms["matching-random"].training(seed) for seed in (1, 2)]
    assert [t.hidden and t.hidden.seed for t in drawn] == [t.seed for t in drawn] == [1, 2]


def test_a_threshold_that_is_the_compared_students_is_not_trained_again(config: StudyConfig):
    reading = dataclasses.replace(config.data.filter, max_wer=0.1)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, filter=reading))
    arms = by_name(make_arms(config, 4))
    assert arms["threshold-10"].config == arms["layers-2"].config
    assert arms["threshold-100"].config.output != arms["layers-2"].config.output


def test_pairs_hold_each_answer_against_its_question(config: StudyConfig):
    config = dataclasses.replace(
        config, matchings=["uniform", "dynamic_dp"], quantised=["w4"], max_steps=9
    )
    found = pairs(config, {"teacher", *(arm.name for arm in make_arms(config, 4))})
    for pair in (
        ("layers-2", "teacher"),
        ("layers-2", "labels-only"),
        ("layers-1", "layers-2"),
        ("matching-dynamic_dp", "matching-uniform"),
        ("w4-trained", "w4-rounded"),
        ("threshold-10", "threshold-100"),
        ("data-90", "layers-2"),
    ):
        assert pair in found
    assert len(found) == len(set(found))
    assert "layers-8" not in {name for pair in found for name in pair}  # the teacher has 4
    assert pairs(config, {"layers-2"}) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": [1, 1]}, "the same seed twice"),
        ({"quantised": ["w8"], "max_steps": 2}, "training on a grid takes 3 or more"),
        ({"student": "x"}, "has its own depth"),
        ({"speed_rounds": -1}, "0 or more"),
    ],
)
def test_a_study_that_cannot_be_is_refused(
    config: StudyConfig, fields: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **fields)


def test_a_study_of_more_layers_than_the_teacher_has_is_refused(config: StudyConfig):
    with pytest.raises(ValueError, match="the teacher has 1 decoder layers"):
        list(make_arms(config, 1))


def test_clips_of_speakers_in_training_are_left_out():
    clips = [(make_sample(id=s, speaker=s), b"") for s in ("a", "b", "c")]
    left, left_out = unseen(clips, {"b"})
    assert [sample.speaker for sample, _ in left] == ["a", "c"]
    assert left_out == 1
    with pytest.raises(ValueError, match="split the corpus by speaker"):
        unseen(clips[:2], {"a", "b"})


def test_a_clip_that_names_no_speaker_is_not_taken_for_one_of_an_unseen_speaker():
    clips = [(make_sample(id=s or "x", speaker=s), b"") for s in ("a", "")]
    left, left_out = unseen(clips, {"b"})
    assert [sample.speaker for sample, _ in left] == ["a"]
    assert left_out == 1
    assert len(unseen(clips, {"b"}, allow_unknown=True)[0]) == 2
    with pytest.raises(ValueError, match="1 name none"):
        unseen(clips[1:], {"b"})


def test_training_on_clips_that_name_no_speaker_leaves_nobody_unseen(
    config: StudyConfig, tmp_path: Path
):
    clips = [
        (dataclasses.replace(sample, speaker="" if number else "a"), audio)
        for number, (sample, audio) in enumerate(make_clips()[:2])
    ]
    shards = [str(write_dataset(tmp_path / "nameless", clips))]
    config = dataclasses.replace(config, data=DataConfig(shards=shards), corrupted=[])
    arms = list(make_arms(config, 4))
    with pytest.raises(ValueError, match="name no speaker"):
        training_speakers(arms)
    assert training_speakers(arms, allow_unknown=True) == {"a"}


def test_what_was_heard_counts_for_the_same_weights_and_clips_only(
    config: StudyConfig, teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clips = validation_clips(config.test)
    heard: list[str] = []
    hear = Listener._hear

    def counted(listener: Listener, model: str) -> list[list[int]]:
        heard.append(model)
        return hear(listener, model)

    monkeypatch.setattr(Listener, "_hear", counted)
    kept = tmp_path / "heard.json"
    first = Listener(clips, 4).counts(str(teacher_folder), kept)
    assert (Listener(clips, 4).counts(str(teacher_folder), kept) == first).all()
    assert len(heard) == 1
    other = tmp_path / "other"
    model = load_model(str(teacher_folder))
    with torch.no_grad():
        model.model.decoder.layer_norm.bias.add_(1.0)
    model.save_pretrained(other)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        if (teacher_folder / name).is_file():
            (other / name).write_bytes((teacher_folder / name).read_bytes())
    Listener(clips, 4).counts(str(other), kept)
    assert heard == [str(teacher_folder), str(other)]
    Listener(clips[:1], 4).counts(str(other), kept)
    assert len(heard) == 3
    kept.write_text("{")  # killed while it wrote
    Listener(clips[:1], 4).counts(str(other), kept)
    assert len(heard) == 4


def test_an_encoder_that_two_students_share_runs_once_and_changes_nothing(
    config: StudyConfig, teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clips = validation_clips(config.test)
    listener = Listener(clips, 1)
    alone = listener.counts(str(teacher_folder), tmp_path / "a.json")
    encoders: list[int] = []
    encode = Listener._encode

    def counted(self: Listener, recognizer: Any, number: int) -> torch.Tensor:
        hook = recognizer.model.model.encoder.register_forward_hook(
            lambda *_: encoders.append(number)
        )
        encoded = encode(self, recognizer, number)
        hook.remove()
        return encoded

    monkeypatch.setattr(Listener, "_encode", counted)
    again = listener.counts(str(teacher_folder), tmp_path / "b.json")
    assert not encoders
    assert (again == alone).all()


def test_weights_are_counted_in_float16_unless_they_are_on_a_grid(
    teacher_folder: Path, config: StudyConfig
):
    model = load_model(str(teacher_folder))
    assert weight_bytes(str(teacher_folder)) == 2 * sum(w.numel() for w in model.parameters())


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
    assert compared.difference.value == compared.difference.low == compared.difference.high == 0.0
    assert compared.speed == 1.0
    output = Path(config.output)
    assert json.loads((output / "study.json").read_text()) == dataclasses.asdict(results)
    page = (output / "study.md").read_text()
    for part in ("**layers-2**", "labels-only", "## By threshold", "Table 21", "Made on"):
        assert part in page
    assert "- `layers-2` against `labels-only`: " in page
    assert "- **Loss.** The teacher's distribution beside its labels " in page
    assert "## By language" not in page
    assert not list(output.glob("*/seed-0/checkpoints"))

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("trained or heard again")

    monkeypatch.setattr("distill.trainer.DistillationTrainer.train", fail)
    monkeypatch.setattr("distill.study_training.init", fail)
    monkeypatch.setattr(Listener, "_hear", fail)
    again = study(config)
    assert [arm.seeds for arm in again.arms] == [arm.seeds for arm in results.arms]


def test_an_interrupted_study_goes_on_and_ends_as_an_undisturbed_one(
    config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = dataclasses.replace(
        config, decoder_layers=[], corrupted=[], shares=[], max_steps=4, speed_rounds=0
    )
    whole = study(dataclasses.replace(config, output=str(tmp_path / "whole")))
    compute = DistillationTrainer.compute_loss
    taken: list[tuple[str, int]] = []

    def study_until(last: tuple[str, int] | None) -> StudyResults:
        def watched(trainer: DistillationTrainer, *arguments: Any, **options: Any) -> Any:
            arm = str(Path(trainer.config.output).relative_to(config.output))
            taken.append((arm, trainer.state.global_step))
            if taken[-1] == last:
                raise KeyboardInterrupt
            return compute(trainer, *arguments, **options)

        monkeypatch.setattr(DistillationTrainer, "compute_loss", watched)
        taken.clear()
        return study(config)

    with pytest.raises(KeyboardInterrupt):
        study_until(("labels-only/seed-0", 3))
    assert taken[:4] == [("layers-2/seed-0", step) for step in range(4)]
    resumed = study_until(None)
    # from the checkpoint of the student that it stood at, and none before it again
    assert taken[0] == ("labels-only/seed-0", 2)
    assert len(taken) == 2 + 2 * 4
    assert resumed.arms == whole.arms


def test_students_that_share_what_the_encoder_heard_are_the_same_students(
    config: StudyConfig, monkeypatch: pytest.MonkeyPatch
):
    """Also where the encoder is put on a grid in the middle of the training."""
    config = dataclasses.replace(
        config, decoder_layers=[], corrupted=[], shares=[0.9], seeds=[0], max_steps=3,
        quantised=["w8"], quantised_kinds=["trained", "labels-only"],
    )  # fmt: skip
    students, memories = {}, {}
    for name, memory in (("shared", EncoderMemory()), ("alone", EncoderMemory(kept_bytes=0))):
        monkeypatch.setattr("distill.study_training.EncoderMemory", lambda kept=memory: kept)
        output = Path(config.output) / name
        of_output = dataclasses.replace(config, output=str(output))
        train_all(list(make_arms(of_output, 4)), of_output)
        students[name] = {
            str(path.relative_to(output)): load_file(path)
            for path in sorted(output.glob("*/seed-0/student/*.safetensors"))
        }
        memories[name] = memory
    assert len(students["alone"]) == 5
    assert students["shared"].keys() == students["alone"].keys()
    for student, weights in students["alone"].items():
        shared = students["shared"][student]
        assert shared.keys() == weights.keys()
        assert all(torch.equal(shared[name], value) for name, value in weights.items()), student
    # each clip is heard once as it is, and once on the grid that begins with the second step
    num_clips = sum(sample.duration_seconds <= 3.0 for sample, _ in make_clips("train"))
    assert memories["shared"].misses == 2 * num_clips
    assert memories["alone"].hits == 0
    asked = memories["shared"].hits + memories["shared"].misses
    assert memories["alone"].misses == asked > 5 * memories["shared"].misses


def test_error_rates_are_given_for_each_language():
    counts = {"a": np.array([[[1, 10, 2, 50], [3, 10, 9, 50], [0, 5, 0, 20]]])}
    table = Comparisons(counts, np.array([0, 1, 1]), ["de", "en", "de"], 10)
    assert table.by_language("a") == {"de": 1 / 15, "en": 3 / 10}


def test_a_study_of_grids_compares_students_with_themselves_rounded(config: StudyConfig):
    config = dataclasses.replace(
        config,
        decoder_layers=[],
        labels_only=False,
        corrupted=[],
        shares=[],
        matchings=["dynamic_dp"],
        zero_shot=True,
        quantised=["w4"],
        quantised_kinds=["rounded", "matched"],
        seeds=[0],
        max_steps=3,
    )
    results = study(config)
    arms = {arm.name: arm for arm in results.arms}
    assert list(arms) == [
        "layers-2",
        "zero-shot",
        "matching-dynamic_dp",
        "w4-rounded",
        "w4-matched",
    ]
    assert arms["zero-shot"].hours == 0.0
    plain, small = arms["layers-2"].size_bytes, arms["w4-rounded"].size_bytes
    assert plain is not None
    assert small is not None
    assert arms["w4-matched"].size_bytes == small
    assert small < plain
    assert all(arm.speed and np.isfinite(arm.speed) for arm in results.arms)
    assert "## By quantisation" in (Path(config.output) / "study.md").read_text()
    # another student of the same name is rounded anew
    arm = by_name(make_arms(config, 4))["w4-rounded"]
    folder = make_student_of(arm, config, 0)
    (folder / "made_of.sha256").write_text("another")
    before = (folder / "quantized.safetensors").stat().st_mtime_ns
    assert (make_student_of(arm, config, 0) / "quantized.safetensors").stat().st_mtime_ns > before
