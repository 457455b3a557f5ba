"""Defects of the reference scripts that are held off nowhere else; tests/test_upstream_defects.py
lists all of them with their tests."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor, WhisperTokenizer

from distill import projection
from distill.data import BatchStream
from distill.data_config import DataConfig, ReadFilterConfig
from distill.distillation import Distillation
from distill.loss_config import LossConfig
from distill.losses import IGNORED
from distill.shards import passes_filter
from distill.student import make_student
from distill.targets import make_target
from distill.trainer import training_arguments
from tests.distill.material import (
    make_audio,
    make_clips,
    make_sample,
    make_training_batch,
    write_dataset,
)

Configure = Callable[..., DataConfig]


def names_of(tokenizer: WhisperTokenizer, ids: Any) -> list[str]:
    return [str(name) for name in tokenizer.convert_ids_to_tokens(ids)]


def test_targets_are_padded_to_the_longest_of_their_batch_and_not_to_448(
    data_config: Configure, processor: WhisperProcessor
):
    stream = BatchStream(data_config(batch_seconds=120.0), processor, 0)
    for batch in itertools.islice(stream, 6):
        counted = (batch["labels"] != IGNORED).nonzero()[:, 1].max() + 1
        assert batch["labels"].shape[1] == batch["decoder_input_ids"].shape[1] == counted < 100


def test_masked_positions_are_dropped_before_the_vocabulary_projection(
    teacher: WhisperForConditionalGeneration, monkeypatch: pytest.MonkeyPatch
):
    projected = []

    def watched(student: torch.Tensor, theirs: Any, *arguments: Any, **options: Any) -> Any:
        projected.append((len(student), len(theirs)))
        return loss(student, theirs, *arguments, **options)

    loss = projection.labelled_loss
    monkeypatch.setattr(projection, "labelled_loss", watched)
    Distillation(make_student(teacher), teacher, LossConfig(), True, True)(**make_training_batch())
    assert projected == [(11, 11)]  # of 27 positions


def test_timestamps_and_prompts_are_drawn_anew_in_every_epoch(
    data_config: Configure, processor: WhisperProcessor, tmp_path: Path
):
    clips = [
        (
            make_sample(id=f"c-{n}", previous_pseudo_label="they came home late"),
            make_audio(1.0, n),
        )
        for n in range(6)
    ]
    shards = [str(write_dataset(tmp_path, clips))]
    config = data_config(shards=shards, prompt_probability=0.5, timestamp_probability=0.5)
    choices: dict[str, list[tuple[bool, bool]]] = {}
    for batch in itertools.islice(BatchStream(config, processor, 0), 6 * 8):
        for clip, inputs in zip(batch["ids"], batch["decoder_input_ids"], strict=True):
            names = names_of(processor.tokenizer, inputs)
            kind = "<|startofprev|>" in names, "<|notimestamps|>" in names
            choices.setdefault(clip, []).append(kind)
    assert all(len(drawn) == 8 for drawn in choices.values())
    assert all(len(set(drawn)) > 1 for drawn in choices.values())


@pytest.mark.parametrize("previous", ["<|startoftranscript|><|en|> a boat", "a <|endoftext|> b"])
def test_a_prompt_that_holds_special_tokens_is_masked_to_its_end(
    tokenizer: WhisperTokenizer, previous: str
):
    target = make_target(make_sample(previous_pseudo_label=previous), tokenizer, prompted=True)
    plain = make_target(make_sample(), tokenizer)
    assert target is not None
    assert plain is not None
    prompt = len(target.labels) - len(plain.labels)
    assert prompt > 1
    assert set(target.labels[:prompt]) == {IGNORED}
    assert target.labels[prompt:] == plain.labels


def test_a_clip_without_a_reference_does_not_teach_that_nobody_speaks(
    data_config: Configure, processor: WhisperProcessor, tmp_path: Path, caplog
):
    missing = {"reference": "", "utterances": (), "wer": None, "cer": None, "metric": ""}
    clips = [
        (make_sample(id=f"c-{n}", **(missing if n == 1 else {})), make_audio(1.0, n))
        for n in range(3)
    ]
    shards = [str(write_dataset(tmp_path, clips))]
    for target, expected in (
        ("pseudo_label", {"c-0", "c-1", "c-2"}),
        ("reference", {"c-0", "c-2"}),
    ):
        stream = BatchStream(data_config(shards=shards, target=target), processor, 0)
        ids = {clip for batch in itertools.islice(stream, 6) for clip in batch["ids"]}
        assert ids == expected
    assert "it has no reference, it would teach that nobody speaks: c-1" in caplog.text


def test_a_label_that_was_cut_off_does_not_teach_to_stop_early(
    data_config: Configure, processor: WhisperProcessor, tmp_path: Path, caplog
):
    clips = [(make_sample(id=f"c-{n}", truncated=n == 1), make_audio(1.0, n)) for n in range(3)]
    shards = [str(write_dataset(tmp_path, clips))]
    ids = {
        target: {
            clip
            for batch in itertools.islice(
                BatchStream(data_config(shards=shards, target=target), processor, 0), 6
            )
            for clip in batch["ids"]
        }
        for target in ("pseudo_label", "reference")
    }
    assert ids == {"pseudo_label": {"c-0", "c-2"}, "reference": {"c-0", "c-1", "c-2"}}
    assert caplog.text.count("its label was cut off, it would teach to stop too early: c-1") == 1


def test_scripts_without_capitals_pass_the_filter():
    clips = [make_sample(t, language=code) for code, t in (("hi", "नमस्ते"), ("ja", "こんにちは"))]
    assert all(passes_filter(clip, ReadFilterConfig(max_wer=0.1)) for clip in clips)


def test_reading_many_epochs_holds_one_pool_of_clips(
    data_config: Configure, processor: WhisperProcessor, monkeypatch: pytest.MonkeyPatch
):
    held: list[int] = []

    def watched(pool: list[Any], *arguments: Any) -> list[Any]:
        held.append(len(pool))
        return [pool]

    monkeypatch.setattr("distill.data.length_batches", watched)
    monkeypatch.setattr(BatchStream, "collate", lambda _self, _clips: {})
    list(itertools.islice(BatchStream(data_config(), processor, 0), 50))
    assert set(held) == {len(make_clips())}


def test_training_reports_to_tensorboard_and_asks_for_no_account(
    data_config: Configure, tmp_path: Path
):
    from distill.config import TrainConfig

    config = TrainConfig(output=str(tmp_path), data=data_config(), student="", device="cpu")
    assert training_arguments(config).report_to == ["tensorboard"]


def test_a_batch_reaches_the_trainer_without_being_split_over_processes_again(
    data_config: Configure, processor: WhisperProcessor, tmp_path: Path
):
    """Each rank reads its own half; together they see every clip, and none twice."""
    shards = [str(write_dataset(tmp_path, make_clips()))]

    def clips(rank: int) -> Iterator[str]:
        for batch in BatchStream(data_config(shards=shards), processor, 0, rank, 2):
            yield from batch["ids"]

    parts = [list(itertools.islice(clips(rank), len(make_clips()) // 2)) for rank in (0, 1)]
    assert sorted(parts[0] + parts[1]) == sorted(sample.id for sample, _ in make_clips())
