import dataclasses
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import WhisperProcessor

from distill.data import Batch, BatchStream, Clip, length_batches, pad_targets, stage_at
from distill.data_config import AugmentConfig, DataConfig, ReadFilterConfig, Stage
from distill.losses import IGNORED
from distill.shards import LocalShard, ShardPass, passes_filter, read_shard, shard_paths
from distill.targets import Target
from pipeline.schema import Sample, SidecarLabel, read_index, sidecar_path, to_json
from tests.distill.material import TEXTS, make_audio, make_clips, make_sample, write_dataset

Configure = Callable[..., DataConfig]


class Identified(BatchStream):
    """A stream whose batches also say what they are made of, one row for each clip."""

    epoch = -1

    def _target(self, sample: Sample, key: str) -> Target | None:
        self.epoch = int(key.split("-")[1])
        return super()._target(sample, key)

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


def test_a_batch_does_not_follow_one_shard_for_as_long_as_it_lasts(
    stream, monkeypatch: pytest.MonkeyPatch
):
    """A shard is often of one corpus and a few speakers."""

    def read(name: str) -> Iterator[tuple[Sample, bytes]]:
        return ((make_sample(id=f"{name}-{n}"), b"") for n in range(60))

    monkeypatch.setattr("distill.data.read_shard", read)
    reading = stream()
    reading.passes = [ShardPass(path=str(shard)) for shard in range(20)]  # pyright: ignore[reportArgumentType]
    order = [sample.id for _, sample, _ in reading._epoch_samples(0, 0, 1)]
    assert sorted(order) == sorted(f"{shard}-{n}" for shard in range(20) for n in range(60))
    for start in range(0, 900, 60):
        shards = Counter(clip.split("-")[0] for clip in order[start : start + 60])
        assert len(shards) >= 6
        assert max(shards.values()) <= 30, start
    assert order == [sample.id for _, sample, _ in reading._epoch_samples(0, 0, 1)]
    assert order != [sample.id for _, sample, _ in reading._epoch_samples(1, 0, 1)]


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


@pytest.mark.parametrize("full", [True, False])
def test_a_clip_meets_others_in_every_epoch(full: bool):
    clips = [
        Clip(
            sample=make_sample(id=f"c-{n}", seconds=2.0 + n / 40),
            flac=b"",
            target=Target(decoder_input_ids=(), labels=()),
            full_window=full,
        )
        for n in range(60)
    ]
    epochs = [length_batches(clips, 120.0, random.Random(seed)) for seed in range(2)]
    first, second = ({frozenset(c.sample.id for c in g) for g in groups} for groups in epochs)
    assert len(first & second) < len(first) / 2


def test_shards_of_other_splits_are_not_read(dataset: Path):
    assert [Path(str(p)).name for p in shard_paths([str(dataset)], "test")] == ["test-00002.tar"]
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
        list(read_shard(LocalShard(path=path, corpus="tones", num_samples=len(TEXTS))))


@pytest.mark.parametrize("damaged", [b'"id";"train-03"', b'"id":"train-0\xff"'])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_byte_in_what_is_said_of_a_clip_names_its_shard(
    stream, tmp_path: Path, damaged: bytes, num_workers: int
):
    write_dataset(tmp_path, make_clips())
    path = tmp_path / "shards" / "train-00000.tar"
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"id":"train-03"', damaged, 1))
    assert path.read_bytes() != content
    with pytest.raises(ValueError, match=r"train-00000\.tar is damaged .*copy it again"):
        next(batches(stream(shards=[str(tmp_path)]), num_workers))


def test_a_shard_whose_rest_is_lost_behind_a_damaged_header_is_damaged(tmp_path: Path):
    write_dataset(tmp_path, make_clips())
    path = tmp_path / "shards" / "train-00000.tar"
    with tarfile.open(path) as tar:
        header = tar.getmembers()[6].offset
    content = bytearray(path.read_bytes())
    content[header] ^= 1
    path.write_bytes(content)
    (shard,) = shard_paths([str(tmp_path)], "train")
    with pytest.raises(ValueError, match=r"damaged \(3 clips, its index says 8\)"):
        list(read_shard(shard))


def test_a_shard_is_read_as_its_writer_reads_it(dataset: Path):
    from pipeline.shards import read_shard as read_as_writer

    for shard in shard_paths([str(dataset)], "train"):
        assert list(read_shard(shard)) == list(read_as_writer(str(shard)))


def test_the_loader_of_a_stream_gives_what_the_stream_gives(stream):
    direct = list(itertools.islice(stream(), 4))
    loaded = list(itertools.islice(batches(stream(), 1), 4))
    for one, other in zip(direct, loaded, strict=True):
        assert one.keys() == other.keys()
        assert one.pop("ids") == other.pop("ids")
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


def named(stream: BatchStream, limit: int = 30) -> dict[int, Counter[str]]:
    """Which clips were drawn in each epoch, by id."""
    found: dict[int, Counter[str]] = {}
    for batch in itertools.islice(stream, limit):
        for (epoch, *_), clip in zip(batch["rows"].tolist(), batch["ids"], strict=True):
            found.setdefault(epoch, Counter())[clip] += 1
    return found


@pytest.fixture(scope="module")
def two_folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A large folder of one corpus and a small one of another."""
    made = []
    for corpus, count, language in (("large", 10, "en"), ("small", 2, "de")):
        clips = [
            (
                make_sample(
                    id=f"{corpus}-{n}",
                    corpus=corpus,
                    language=language,
                    licence=f"licence-of-{corpus}",
                    wer=n / 10,
                ),
                make_audio(1.0, n),
            )
            for n in range(count)
        ]
        made.append(str(write_dataset(tmp_path_factory.mktemp(corpus), clips)))
    return made


def test_a_small_folder_does_not_end_the_epoch_of_a_large_one(stream, two_folders):
    found = named(stream(shards=two_folders), 24)
    assert (
        found[0] == found[1] == Counter([f"large-{n}" for n in range(10)] + ["small-0", "small-1"])
    )


def test_a_weight_says_how_often_a_folder_comes_in_an_epoch(stream, two_folders):
    found = named(stream(shards=two_folders, weights=[0.5, 3.0], batch_seconds=30.0), 120)
    epochs_seen = [found[n] for n in range(6)]
    for clips in epochs_seen:
        assert clips["small-0"] == clips["small-1"] == 3
        assert max(clips[f"large-{n}"] for n in range(10)) == 1
    shares = [sum(clips[f"large-{n}"] for n in range(10)) for clips in epochs_seen]
    assert 15 <= sum(shares) <= 45
    assert len({tuple(sorted(clips)) for clips in epochs_seen}) > 1


def test_two_copies_of_a_clip_in_an_epoch_are_drawn_differently(stream, two_folders, processor):
    kinds = set()
    for batch in itertools.islice(stream(shards=two_folders[1:], weights=[8.0]), 16):
        for inputs in batch["decoder_input_ids"].tolist():
            names = processor.tokenizer.convert_ids_to_tokens(inputs)
            kinds.add("<|notimestamps|>" in names)
    assert kinds == {True, False}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_wer": 0.1}, {"large-0", "large-1", "small-0", "small-1"}),
        ({"corpora": ["small"]}, {"small-0", "small-1"}),
        ({"licences": ["licence-of-small", "other"]}, {"small-0", "small-1"}),
        ({"languages": ["en"], "max_wer": 0.05}, {"large-0"}),
    ],
)
def test_a_filter_at_reading_leaves_clips_out_and_shards_as_they_are(
    stream, two_folders, fields: dict[str, Any], expected: set[str]
):
    paths = [Path(str(p)) for folder in two_folders for p in shard_paths([folder], "train")]
    before = [p.read_bytes() for p in paths]
    found = named(stream(shards=two_folders, filter=ReadFilterConfig(**fields)), 12)
    assert set(found[0]) == set(found[1]) == expected
    assert [p.read_bytes() for p in paths] == before


def test_the_threshold_is_met_by_a_rate_that_equals_it_and_not_by_a_missing_one():
    config = ReadFilterConfig(max_wer=0.1)
    assert passes_filter(make_sample(wer=0.1), config)
    assert not passes_filter(make_sample(wer=0.1001), config)
    assert not passes_filter(make_sample(wer=None, cer=None, metric=""), config)
    assert passes_filter(make_sample(wer=1.0, cer=0.05, metric="cer"), config)
    assert not passes_filter(make_sample(wer=0.0, cer=0.5, metric="cer"), config)


def test_a_larger_share_holds_a_smaller_one():
    clips = [make_sample(id=f"c-{n}") for n in range(200)]
    small, large = (
        {c.id for c in clips if passes_filter(c, ReadFilterConfig(share=share))}
        for share in (0.25, 0.5)
    )
    assert small < large
    assert 30 < len(small) < 70
    assert 80 < len(large) < 120


def test_a_filter_that_lets_nothing_pass_is_said(stream):
    with pytest.raises(ValueError, match="data.filter lets none pass"):
        next(iter(stream(filter=ReadFilterConfig(corpora=["elsewhere"]))))


def test_a_changed_byte_is_found_by_its_checksum(tmp_path: Path):
    write_dataset(tmp_path, make_clips())
    path = tmp_path / "shards" / "train-00000.tar"
    assert shard_paths([str(tmp_path)], "train", verify=True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert shard_paths([str(tmp_path)], "train")
    with pytest.raises(ValueError, match="SHA-256 differs"):
        shard_paths([str(tmp_path)], "train", verify=True)


def test_damaged_sound_is_named_by_its_clip(stream, tmp_path: Path):
    write_dataset(tmp_path, make_clips())
    path = tmp_path / "shards" / "train-00000.tar"
    (shard,) = shard_paths([str(tmp_path)], "train")
    (flac,) = [flac for sample, flac in read_shard(shard) if sample.id == "train-01"]
    content = path.read_bytes()
    path.write_bytes(content.replace(flac[:8192], bytes(8192)))  # as a disk loses blocks
    with pytest.raises(ValueError, match=r"the sound of train-01 is damaged .*verify_checksums"):
        list(itertools.islice(stream(shards=[str(tmp_path)]), 8))


def test_a_missing_shard_is_named(tmp_path: Path):
    write_dataset(tmp_path, make_clips())
    (tmp_path / "shards" / "train-00000.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"train-00000.tar is missing, its index lists it"):
        shard_paths([str(tmp_path)], "train")


def test_shards_of_another_schema_version_are_refused(tmp_path: Path):
    write_dataset(tmp_path, make_clips())
    index = tmp_path / "index.json"
    index.write_text(index.read_text().replace('"schema_version":1', '"schema_version":99'))
    with pytest.raises(ValueError, match="schema_version 99"):
        shard_paths([str(tmp_path)], "train")


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_changes_of_sound_are_drawn_anew_each_epoch_whatever_the_processes(stream):
    augment = AugmentConfig(time_masks=2, mel_masks=2, speed_probability=0.5)
    fields: dict[str, Any] = {
        "augment": augment,
        "curriculum": [Stage(max_seconds=1.1, full_windows=1.0)],
    }

    def features(num_workers: int) -> dict[tuple[int, str], torch.Tensor]:
        found = {}
        for batch in itertools.islice(batches(stream(**fields), num_workers), 8):
            for row, (epoch, *_), clip in zip(
                batch["input_features"], batch["rows"].tolist(), batch["ids"], strict=True
            ):
                found[epoch, clip] = row
        return found

    alone, two = features(0), features(2)
    both = alone.keys() & two.keys()
    assert len(both) >= 4
    assert all(torch.equal(alone[k], two[k]) for k in both)
    clip = next(iter(both))[1]
    assert not torch.equal(alone[0, clip], alone[1, clip])


GLOO_WORKER = """
import sys, json, itertools
import torch.distributed as dist
from torch.utils.data import DataLoader
from distill.data_config import DataConfig
from distill.data import BatchStream
from distill.student import load_processor

rank, store, folder, model = int(sys.argv[1]), *sys.argv[2:]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
config = DataConfig(shards=[folder], batch_seconds=30.0, num_workers=2)
stream = BatchStream(config, load_processor(model), 0, dist.get_rank(), dist.get_world_size())
loader = DataLoader(stream, batch_size=None, num_workers=2)
seen = [(clip, n) for n, batch in enumerate(itertools.islice(loader, 4)) for clip in batch["ids"]]
gathered = [None, None]
dist.all_gather_object(gathered, seen)
if rank == 0:
    print(json.dumps(gathered))
"""


def test_two_ranks_of_two_workers_see_every_clip_once(
    dataset: Path, teacher_folder: Path, tmp_path: Path
):
    arguments = [str(tmp_path / "store"), str(dataset), str(teacher_folder)]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", GLOO_WORKER, str(rank), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"},
        )
        for rank in (0, 1)
    ]
    outputs = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    first_epoch: Counter[str] = Counter()
    for seen in json.loads(outputs[0].splitlines()[-1]):
        clips = [clip for clip, _ in seen]
        part = Counter(dict.fromkeys(clips, 1))
        assert set(part) == set(clips)
        assert not first_epoch & part
        first_epoch += part
    assert sorted(first_epoch) == [f"train-{n:02d}" for n in range(len(TEXTS))]


def test_other_labels_take_the_place_of_the_samples_own(
    data_config: Configure, dataset: Path, processor: WhisperProcessor, tmp_path: Path
):
    copy = Path(shutil.copytree(dataset, tmp_path / "copy"))
    for entry in read_index(copy).shards:
        lines = []
        path = copy / "shards" / entry.name
        shard = LocalShard(path=path, corpus=entry.corpus, num_samples=entry.num_samples)
        for sample, _ in read_shard(shard):
            fields = {name: getattr(sample, name) for name in SidecarLabel.__annotations__}
            fields |= {"pseudo_label": "seven birds", "segments": (), "tokens": ()}
            lines.append(to_json(SidecarLabel(**fields)) + "\n")
        path = sidecar_path(copy, "other", entry.name)
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(lines[1:]), encoding="utf-8")
    stream = BatchStream(data_config(shards=[str(copy)], labels="other"), processor, seed=0)
    found = {s.id: s.pseudo_label for _, s, _ in stream._epoch_samples(0, 0, 1)}
    assert set(found.values()) == {"seven birds"}
    assert len(found) == 8 - 2, "of each of the two shards one clip has no other label"
