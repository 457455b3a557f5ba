"""Clips from shards to batches: an endless stream in explicit epochs.

Every epoch shows each clip once, in an order drawn from (seed, epoch); what is random about a clip
is drawn from (seed, epoch, clip id), so it does not depend on how many processes read. Clips of
similar length share a batch, and a batch is measured in seconds of window, not in clips.
"""

import itertools
import logging
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info
from transformers import WhisperProcessor
from webdataset.tariterators import group_by_keys, tar_file_expander

from distill.config import DataConfig, Stage
from distill.losses import IGNORED
from distill.targets import Target, label_text, make_target, spell, token_id, with_wrong_tokens
from pipeline.audio import decode_flac
from pipeline.schema import MAX_CLIP_SECONDS, SAMPLE_RATE, Sample, from_json, read_index

logger = logging.getLogger(__name__)

POOL_BATCHES = 24
"""Batches' worth of clips that are sorted by length together."""
WINDOW_STEP_SECONDS = 0.5
"""Short windows are multiples of this, so that few tensor shapes occur."""
WINDOW_MARGIN_SECONDS = 0.3
"""Silence after the longest clip of a short window."""

Batch = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One sample with its FLAC, which is decoded when its batch is made: a pool is hours long."""

    sample: Sample
    flac: bytes
    target: Target
    full_window: bool

    @property
    def window_seconds(self) -> float:
        """How long a window this clip takes up in a batch."""
        if self.full_window:
            return MAX_CLIP_SECONDS
        seconds = self.sample.duration_seconds + WINDOW_MARGIN_SECONDS
        return min(MAX_CLIP_SECONDS, -(-seconds // WINDOW_STEP_SECONDS) * WINDOW_STEP_SECONDS)


def shard_paths(folders: list[str], split: str) -> list[Path]:
    """List the shards of a split in finished datasets.

    Raises:
        FileNotFoundError: a folder is not a finished dataset, or lacks a shard.
        ValueError: no shard of that split has a sample, or one is not as long as the index says.
    """
    paths, splits = [], set()
    for folder in folders:
        for entry in read_index(folder).shards:
            splits.add(entry.split)
            if entry.split == split and entry.num_samples:
                paths.append(Path(folder) / "shards" / entry.name)
                size_bytes = paths[-1].stat().st_size
                if size_bytes != entry.size_bytes:
                    raise ValueError(
                        f"{paths[-1]} has {size_bytes} bytes, its index says {entry.size_bytes}: "
                        "copy it again, or run the pipeline again"
                    )
    if not paths:
        raise ValueError(
            f"no samples of split {split!r} in {', '.join(folders)}; there are {sorted(splits)}"
        )
    return paths


def read_shard(path: Path) -> Iterator[tuple[Sample, bytes]]:
    """Yield the clips of a shard, each with its FLAC.

    Raises:
        ValueError: the shard is damaged, or a clip lacks a member or a field.
    """
    with path.open("rb") as stream:
        try:
            members = tar_file_expander([{"url": str(path), "stream": stream}])
            for clip in group_by_keys(members):
                yield from_json(Sample, clip["json"]), clip["flac"]
        except (tarfile.TarError, KeyError) as error:
            raise ValueError(f"{path} is damaged ({error}); run the pipeline again") from error


class BatchStream(IterableDataset[Batch]):
    """Training batches without end.

    A batch holds features (batch, mels, frames), decoder inputs and labels (batch, tokens), and
    spellings (batch, letters). Of `num_ranks` training processes, each with its own stream, every
    one reads its part of an epoch. The first `num_skipped` batches, which an interrupted training
    has had, are passed over undecoded.
    """

    def __init__(
        self,
        config: DataConfig,
        processor: WhisperProcessor,
        seed: int,
        rank: int = 0,
        num_ranks: int = 1,
        num_skipped: int = 0,
    ) -> None:
        self.config, self.processor, self.seed = config, processor, seed
        self.rank, self.num_ranks = rank, num_ranks
        self.num_skipped = num_skipped
        self.shards = shard_paths(config.shards, config.split)

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches, epoch after epoch; with several processes each reads its part."""
        worker = get_worker_info()
        worker_id, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        part, parts = self.rank * num_workers + worker_id, self.num_ranks * num_workers
        batches = 0
        skipped = -(-(self.num_skipped - worker_id) // num_workers)  # the loader takes turns
        for epoch in itertools.count():
            before = batches
            rng = random.Random(f"{self.seed}-{epoch}-{part}")
            pool: list[Clip] = []
            pooled_seconds = 0.0
            for sample, flac in self._epoch_samples(epoch, part, parts):
                stage = stage_at(self.config.curriculum, batches * num_workers)
                if sample.duration_seconds > stage.max_seconds:
                    continue
                target = self._target(sample, epoch)
                if target is None:
                    if epoch == 0:
                        logger.warning("left out, text too long for the decoder: %s", sample.id)
                    continue
                draw = random.Random(f"{self.seed}-{epoch}-{sample.id}-window").random()
                full = draw < stage.full_windows
                pool.append(Clip(sample=sample, flac=flac, target=target, full_window=full))
                pooled_seconds += pool[-1].window_seconds
                if pooled_seconds >= POOL_BATCHES * self.config.batch_seconds:
                    for clips in length_batches(pool, self.config.batch_seconds, rng):
                        batches += 1
                        if batches > skipped:
                            yield self.collate(clips)
                    pool, pooled_seconds = [], 0.0
            for clips in length_batches(pool, self.config.batch_seconds, rng):
                batches += 1
                if batches > skipped:
                    yield self.collate(clips)
            if batches == before:
                raise ValueError(
                    f"an epoch over {', '.join(self.config.shards)} gave no clip to train on: "
                    "the curriculum's max_seconds is too short, or there are fewer clips than "
                    f"the {parts} processes that read (data.num_workers, for each device)"
                )

    def _epoch_samples(self, epoch: int, part: int, parts: int) -> Iterator[tuple[Sample, bytes]]:
        """Read this process's part of an epoch: whole shards, or single samples of few shards."""
        shards = self.shards.copy()
        random.Random(f"{self.seed}-{epoch}").shuffle(shards)
        if len(shards) >= parts:
            return itertools.chain.from_iterable(map(read_shard, shards[part::parts]))
        every = itertools.chain.from_iterable(map(read_shard, shards))
        return itertools.islice(every, part, None, parts)

    def collate(self, clips: list[Clip]) -> Batch:
        """Turn clips into tensors."""
        window = max(clip.window_seconds for clip in clips)
        features = self.processor.feature_extractor(
            [decode_flac(clip.flac) for clip in clips],
            sampling_rate=SAMPLE_RATE,
            padding="max_length",
            max_length=round(window * SAMPLE_RATE),
            return_tensors="pt",
        ).input_features
        padding = self.processor.tokenizer.convert_tokens_to_ids("<|endoftext|>")
        inputs, labels = pad_targets([clip.target for clip in clips], padding)
        use_reference = self.config.target == "reference"
        return {
            "input_features": features,
            "decoder_input_ids": inputs,
            "labels": labels,
            "spelling": pad_spellings([label_text(c.sample, use_reference) for c in clips]),
        }

    def _target(self, sample: Sample, epoch: int) -> Target | None:
        rng = random.Random(f"{self.seed}-{epoch}-{sample.id}")
        tokenizer = self.processor.tokenizer
        target = make_target(
            sample,
            tokenizer,
            use_reference=self.config.target == "reference",
            timestamps=rng.random() < self.config.timestamp_probability,
            prompted=rng.random() < self.config.prompt_probability,
        )
        wrong = self.config.wrong_token_probability
        if target is None or wrong == 0:
            return target
        return with_wrong_tokens(target, wrong, token_id(tokenizer, "<|endoftext|>"), rng)


def stage_at(curriculum: list[Stage], batch_number: int) -> Stage:
    """Return the stage of the curriculum that a batch belongs to."""
    return max((s for s in curriculum if s.from_batch <= batch_number), key=lambda s: s.from_batch)


def length_batches(clips: list[Clip], batch_seconds: float, rng: random.Random) -> list[list[Clip]]:
    """Group clips of similar window into batches of at most `batch_seconds`, in random order."""
    batches: list[list[Clip]] = []
    for clip in sorted(
        clips, key=lambda c: (c.window_seconds, c.sample.duration_seconds, c.sample.id)
    ):
        if not batches or (len(batches[-1]) + 1) * clip.window_seconds > batch_seconds:
            batches.append([])
        batches[-1].append(clip)
    rng.shuffle(batches)
    return batches


def pad_spellings(texts: list[str]) -> Tensor:
    """Stack the spellings of texts, shape (batch, letters); 0 behind the end."""
    spellings = [spell(text) for text in texts]
    padded = torch.zeros(len(texts), max(1, *map(len, spellings)), dtype=torch.long)
    for row, spelling in enumerate(spellings):
        padded[row, : len(spelling)] = torch.tensor(spelling, dtype=torch.long)
    return padded


def pad_targets(targets: list[Target], padding: int) -> tuple[Tensor, Tensor]:
    """Stack targets of different length; padded positions have no label."""
    longest = max(len(t.labels) for t in targets)
    inputs = torch.full((len(targets), longest), padding)
    labels = torch.full((len(targets), longest), IGNORED)
    for row, target in enumerate(targets):
        inputs[row, : len(target.labels)] = torch.tensor(target.decoder_input_ids)
        labels[row, : len(target.labels)] = torch.tensor(target.labels)
    return inputs, labels
