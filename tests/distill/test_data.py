import dataclasses
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import WhisperProcessor

from distill.config import DataConfig, Stage
from distill.data import (
    Batch,
    BatchStream,
    Clip,
    length_batches,
    pad_targets,
    read_shard,
    shard_paths,
    stage_at,
)
from distill.losses import IGNORED
from distill.targets import Target
from pipeline.schema import Sample
from tests.distill.material import TEXTS, make_audio, make_clips, make_sample, write_dataset

Configure = Callable[..., DataConfig]


class Identified(BatchStream):
    """A stream whose batches also say what they are made of, one row for each clip."""

    epoch = -1

    def _target(self, sample: Sample, epoch: int) -> Target | None:
        self.epoch = epoch
        return super()._target(sample, epoch)

    def collate(self, clips: list[Clip]) -> Batch:
        numbers = [[self.epoch, int(c.sample.id.split("-")[-1]), c.full_window] for c in clips]
        return {**super().collate(clips), "rows": torch.tensor(numbers)}


@pytest.fixture
def stream(data_config: Configure, processor: WhisperProcessor) -> Callable[..., Identified]:
    def make(seed: int = 0, rank: int = 0, num_ranks: int = 1, **fields: Any) -> Identified:
        return Identified(data_config(**fields), processor, seed, rank, num_ranks)

    return make


def batches(stream: BatchStream, num_workers: int = 0) -> Iterator[dict[str, Any]]:
    return iter(DataLoader(stream, batch_size=None, num_workers=num_workers))


def epochs(
    found: Iterator[dict[str, Any]], wanted: int, limit: int = 60
) -> dict[int, Counter[int]]:
    """Which clips were drawn in each of the first epochs, however processes interleave."""
    clips: dict[int, Counter[int]] = {}
    for batch in itertools.islice(found, limit):
        for epoch, number, _ in batch["rows"].tolist():
            clips.setdefault(epoch, Counter())[number] += 1
    return {epoch: clips[epoch] for epoch in range(wanted)}


ALL_ONCE = Counter(range(len(TEXTS)))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
def test_every_clip_comes_once_in_every_epoch(stream, num_workers: int):
    found = epochs(batches(stream(), num_workers), 3)
    assert found == {0: ALL_ONCE, 1: ALL_ONCE, 2: ALL_ONCE}


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_training_processes_share_an_epoch(stream, num_ranks: int):
    seen: Counter[int] = Counter()
    for rank in range(num_ranks):
        part = epochs(iter(stream(rank=rank, num_ranks=num_ranks)), 1, 9)[0]
        assert part
        seen += part
    assert seen == ALL_ONCE


def test_the_order_changes_with_epoch_and_seed_and_is_else_the_same(
    data_config, processor, tmp_path
):
    clips = [(make_sample(id=f"c-{n}"), make_audio(1.0, n)) for n in range(12)]
    write_dataset(tmp_path, clips)

    def two_epochs(seed: int) -> list[int]:
        found = batches(Identified(data_config(shards=[str(tmp_path)]), processor, seed))
        return [n for b in itertools.islice(found, 24) for _, n, _ in b["rows"].tolist()]

    order = two_epochs(seed=0)
    assert sorted(order[:12]) == sorted(order[12:]) == list(range(12))
    assert order[:12] != order[12:]
    assert order == two_epochs(seed=0) != two_epochs(seed=1)


def test_random_choices_of_a_clip_do_not_depend_on_the_processes(stream, processor):
    def choices(num_workers: int) -> dict[tuple[int, int], tuple]:
        fields: dict[str, Any] = {
            "timestamp_probability": 0.5,
            "prompt_probability": 0.5,
            "curriculum": [Stage(full_windows=0.5)],
        }
        found = {}
        for batch in itertools.islice(batches(stream(**fields), num_workers), 30):
            for (epoch, number, full), inputs in zip(
                batch["rows"].tolist(), batch["decoder_input_ids"].tolist(), strict=True
            ):
                kinds = processor.tokenizer.convert_ids_to_tokens(inputs)
                prompted, plain = "<|startofprev|>" in kinds, "<|notimestamps|>" in kinds
                found[epoch, number] = (full, prompted, plain)
        return found

    alone, two = choices(0), choices(2)
    both = alone.keys() & two.keys()
    assert len(both) >= 2 * len(TEXTS)
    assert [alone[k] for k in both] == [two[k] for k in both]
    assert len({alone[k] for k in both}) > 3


@pytest.mark.parametrize("full_windows", [0.0, 0.3, 1.0])
def test_a_batch_keeps_to_its_budget_of_seconds(stream, full_windows: float):
    curriculum = [Stage(full_windows=full_windows)]
    for batch in itertools.islice(stream(batch_seconds=65.0, curriculum=curriculum), 12):
        size, mels, frames = batch["input_features"].shape
        assert mels == 80
        assert size * frames / 100 <= 65.0
        assert frames % 50 == 0
        assert batch["labels"].shape == batch["decoder_input_ids"].shape
        if full_windows == 1:
            assert frames == 3000


def test_short_windows_hold_their_clips_and_not_much_more(stream):
    for batch in itertools.islice(stream(curriculum=[Stage(full_windows=0.0)]), 20):
        frames = batch["input_features"].shape[-1]
        longest = max((1.0, 2.5, 3.7, 0.8, 1.2, 6.0, 30.0, 2.0)[n] for _, n, _ in batch["rows"])
        assert longest <= frames / 100 <= max(longest + 0.8, 30)


def test_a_clip_of_exactly_30_seconds_is_kept_whole(stream):
    (batch,) = [
        b for b in itertools.islice(stream(), 8) if 6 in b["rows"][:, 1] and b["rows"][0, 0] == 0
    ]
    row = batch["rows"][:, 1].tolist().index(6)
    assert batch["input_features"].shape[-1] == 3000
    assert batch["input_features"][row, :, 2900:].std() > 0.1  # sound, not padding


def test_a_stage_of_the_curriculum_leaves_longer_clips_out(stream):
    curriculum = [
        Stage(max_seconds=2.0, full_windows=0.0),
        Stage(from_batch=3, max_seconds=6.0, full_windows=1.0),
    ]
    found = stream(batch_seconds=30.0, curriculum=curriculum)
    seen = {}
    for batch in itertools.islice(found, 40):
        for epoch, number, full in batch["rows"].tolist():
            seen.setdefault(epoch, set()).add((number, full))
    short = {0, 3, 4, 7}
    assert seen[0] == {(n, 0) for n in short}
    assert seen[5] == {(n, 1) for n in (*short, 1, 2, 5)}


@pytest.mark.parametrize(("batch", "expected"), [(0, 0), (9, 0), (10, 10), (15, 10), (99, 20)])
def test_the_latest_stage_that_has_begun_counts(batch: int, expected: int):
    stages = [Stage(from_batch=20), Stage(), Stage(from_batch=10)]
    assert stage_at(stages, batch).from_batch == expected


def test_an_epoch_without_a_clip_ends_with_an_error_instead_of_never(stream):
    with pytest.raises(ValueError, match="gave no clip to train on"):
        next(iter(stream(curriculum=[Stage(max_seconds=0.1)])))


def test_more_processes_than_clips_are_refused_with_advice(stream):
    with pytest.raises(ValueError, match="fewer clips than the 20 processes"):
        list(itertools.islice(stream(rank=19, num_ranks=20), 1))


def test_a_text_too_long_for_the_decoder_is_left_out_and_named(
    data_config, processor, tmp_path, caplog
):
    clips = [
        (make_sample(t, id=f"c-{n}"), make_audio(1.0)) for n, t in enumerate(("ok", "the " * 500))
    ]
    write_dataset(tmp_path, clips)
    config = data_config(shards=[str(tmp_path)], batch_seconds=60.0)
    batch = next(batches(BatchStream(config, processor, 0)))
    assert batch["input_features"].shape[0] == 1
    assert "c-1" in caplog.text


def test_padding_has_no_label():
    rows = [Target(decoder_input_ids=(5, 6, 7), labels=(6, 7, 9))]
    rows.append(Target(decoder_input_ids=(5,), labels=(9,)))
    inputs, labels = pad_targets(rows, padding=9)
    assert inputs.tolist() == [[5, 6, 7], [5, 9, 9]]
    assert labels.tolist() == [[6, 7, 9], [9, IGNORED, IGNORED]]


def test_batches_hold_every_clip_once_within_the_budget():
    rng = random.Random(0)
    clips = [
        Clip(
            sample=make_sample(id=f"c-{n}", seconds=round(rng.uniform(0.1, 30.0), 4)),
            flac=b"",
            target=Target(decoder_input_ids=(), labels=()),
            full_window=rng.random() < 0.2,
        )
        for n in range(60)
    ]
    groups = length_batches(clips, 60.0, rng)
    assert sorted(c.sample.id for g in groups for c in g) == sorted(c.sample.id for c in clips)
    for group in groups:
        assert len(group) * max(c.window_seconds for c in group) <= 60.0


def test_shards_of_other_splits_are_not_read(dataset: Path):
    assert [p.name for p in shard_paths([str(dataset)], "test")] == ["test-00002.tar"]
    assert len(shard_paths([str(dataset), str(dataset)], "train")) == 4


def test_an_unfinished_folder_and_a_missing_split_are_refused(dataset: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="not a finished dataset"):
        shard_paths([str(tmp_path)], "train")
    with pytest.raises(ValueError, match=r"there are \['test', 'train'\]"):
        shard_paths([str(dataset)], "dev")


def test_a_shard_that_was_cut_is_refused_before_training(tmp_path: Path):
    write_dataset(tmp_path, make_clips())
    path = tmp_path / "shards" / "train-00000.tar"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="run the pipeline again"):
        shard_paths([str(tmp_path)], "train")
    with pytest.raises(ValueError, match="is damaged"):
        list(read_shard(path))


def test_a_shard_is_read_as_its_writer_reads_it(dataset: Path):
    from pipeline.shards import read_shard as read_as_writer

    for path in shard_paths([str(dataset)], "train"):
        assert list(read_shard(path)) == list(read_as_writer(path))


def test_the_loader_of_a_stream_gives_what_the_stream_gives(stream):
    direct = list(itertools.islice(stream(), 4))
    loaded = list(itertools.islice(batches(stream(), 1), 4))
    for one, other in zip(direct, loaded, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(torch.as_tensor(one[k]), torch.as_tensor(other[k])) for k in one)


def test_probabilities_of_0_and_1_are_never_and_always(stream, processor):
    for probability in (0.0, 1.0):
        found = stream(timestamp_probability=probability, prompt_probability=probability)
        for batch in itertools.islice(found, 8):
            for (_, number, _), inputs in zip(
                batch["rows"].tolist(), batch["decoder_input_ids"].tolist(), strict=True
            ):
                kinds = processor.tokenizer.convert_ids_to_tokens(inputs)
                has_previous = bool(TEXTS[number - 1])
                assert ("<|startofprev|>" in kinds) == (probability == 1 and has_previous)
                has_text = bool(TEXTS[number])
                assert ("<|notimestamps|>" in kinds) == (probability == 0 or not has_text)


def test_configs_are_replaced_not_changed(data_config):
    config = data_config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.split = "test"


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("num_workers", "num_skipped"), [(0, 3), (1, 5), (2, 4)])
def test_a_stream_goes_on_behind_the_batches_it_skips(stream, num_workers: int, num_skipped: int):
    def drawn(skipped: int, wanted: int) -> list[list[int]]:
        made = stream()
        made.num_skipped = skipped
        found = itertools.islice(batches(made, num_workers), wanted)
        return [batch["rows"].tolist() for batch in found]

    assert drawn(num_skipped, 4) == drawn(0, num_skipped + 4)[num_skipped:]
