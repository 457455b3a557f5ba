"""Clips from shards to batches: an endless stream in explicit epochs.

Every epoch shows each clip once, or as often as its folder's weight says, in an order drawn from
(seed, epoch), out of several shards at a time; what is random about a clip is drawn from (seed,
epoch, copy, clip id), so it does not depend on how many processes read. Clips of similar length
share a batch, and a batch is measured in seconds of window, not in clips.
"""

import itertools
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info
from transformers import WhisperProcessor

from distill.augment import at_speed, change_sound, draw_speed, mask_features, noise_files
from distill.data_config import DataConfig, Stage
from distill.losses import IGNORED
from distill.shards import ShardPass, passes_filter, read_labels, read_shard, shard_passes
from distill.targets import Target, label_text, make_target, spell, token_id, with_wrong_tokens
from pipeline.audio import AudioError, decode_flac
from pipeline.features import FRAMES_PER_SECOND, log_mels
from pipeline.schema import MAX_CLIP_SECONDS, Sample, with_label

logger = logging.getLogger(__name__)

POOL_BATCHES = 24
"""Batches' worth of clips that are sorted by length together."""
OPEN_SHARDS = 8
"""Shards that are read side by side: one alone is often of one corpus and a few speakers, and a
training would follow it for as long as it lasts."""
WINDOW_STEP_SECONDS = 0.5
"""Short windows are multiples of this, so that few tensor shapes occur."""
WINDOW_MARGIN_SECONDS = 0.3
"""Silence after the longest clip of a short window."""

MAX_EMPTY_EPOCHS = 10
"""Epochs that may give a process nothing, because a filter emptied the shards that it drew."""

Batch = dict[str, Any]
"""Tensors by name, and `ids`, the clips that the rows are made of."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One sample with its FLAC, which is decoded when its batch is made: a pool is hours long."""

    sample: Sample
    flac: bytes
    target: Target
    full_window: bool
    key: str = ""
    """What everything random about it is drawn from."""
    speed: float = 1.0

    @property
    def window_seconds(self) -> float:
        """How long a window this clip takes up in a batch."""
        if self.full_window:
            return MAX_CLIP_SECONDS
        seconds = self.sample.duration_seconds + WINDOW_MARGIN_SECONDS
        return min(MAX_CLIP_SECONDS, -(-seconds // WINDOW_STEP_SECONDS) * WINDOW_STEP_SECONDS)


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
        multilingual: bool = True,
    ) -> None:
        self.config, self.processor, self.seed = config, processor, seed
        self.rank, self.num_ranks = rank, num_ranks
        self.num_skipped, self.multilingual = num_skipped, multilingual
        self.passes = shard_passes(config)
        self._left_out: set[str] = set()
        if config.augment.noise is not None:
            noise_files(config.augment.noise)

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches, epoch after epoch; with several processes each reads its part."""
        worker = get_worker_info()
        worker_id, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        part, parts = self.rank * num_workers + worker_id, self.num_ranks * num_workers
        batches = 0
        skipped = -(-(self.num_skipped - worker_id) // num_workers)  # the loader takes turns
        empty_epochs = 0
        for epoch in itertools.count():
            before = batches
            rng = random.Random(f"{self.seed}-{epoch}-{part}")
            pool: list[Clip] = []
            pooled_seconds = 0.0
            for key, sample, flac in self._epoch_samples(epoch, part, parts):
                stage = stage_at(self.config.curriculum, batches * num_workers)
                clip = self._clip(key, sample, flac, stage)
                if clip is None:
                    continue
                pool.append(clip)
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
            empty_epochs = 0 if batches > before else empty_epochs + 1
            others_may_come = parts > 1 or any(reading.share < 1 for reading in self.passes)
            if empty_epochs > (MAX_EMPTY_EPOCHS if others_may_come else 0):
                raise ValueError(
                    f"an epoch over {', '.join(self.config.shards)} gave no clip to train on: "
                    "data.filter lets none pass, the curriculum's max_seconds is too short, or "
                    f"there are fewer clips than the {parts} processes that read "
                    "(data.num_workers, for each device)"
                )

    def _epoch_samples(
        self, epoch: int, part: int, parts: int
    ) -> Iterator[tuple[str, Sample, bytes]]:
        """Read this process's part of an epoch: whole shards, or single samples of few shards.

        Every clip comes with its key.
        """
        passes = self.passes.copy()
        random.Random(f"{self.seed}-{epoch}").shuffle(passes)
        if len(passes) >= parts:
            yield from self._read(passes[part::parts], epoch)
        else:
            yield from itertools.islice(self._read(passes, epoch), part, None, parts)

    def _read(self, passes: list[ShardPass], epoch: int) -> Iterator[tuple[str, Sample, bytes]]:
        """Read shards side by side, the next clip from any of those that are open."""
        rng = random.Random(f"{self.seed}-{epoch}-open")
        waiting = iter(passes)
        opened = [self._read_pass(each, epoch) for each in itertools.islice(waiting, OPEN_SHARDS)]
        while opened:
            place = rng.randrange(len(opened))
            found = next(opened[place], None)
            if found is not None:
                yield found
            elif (following := next(waiting, None)) is not None:
                opened[place] = self._read_pass(following, epoch)
            else:
                del opened[place]

    def _read_pass(self, reading: ShardPass, epoch: int) -> Iterator[tuple[str, Sample, bytes]]:
        labels = read_labels(reading.labels) if reading.labels else None
        for sample, flac in read_shard(reading.path):
            if labels is not None:
                if sample.id not in labels:
                    continue
                sample = with_label(sample, labels[sample.id])
            if not passes_filter(sample, self.config.filter):
                continue
            key = clip_key(self.seed, epoch, reading.copy, sample.id)
            if reading.share == 1 or random.Random(f"{key}-share").random() < reading.share:
                yield key, sample, flac

    def _clip(self, key: str, sample: Sample, flac: bytes, stage: Stage) -> Clip | None:
        """Draw what is random about a clip, or return None where it cannot take part."""
        if sample.truncated and self.config.target == "pseudo_label":
            self._leave_out(sample, "its label was cut off, it would teach to stop too early")
            return None
        if not sample.metric and self.config.target == "reference":
            self._leave_out(sample, "it has no reference, it would teach that nobody speaks")
            return None
        speed = draw_speed(self.config.augment, sample.duration_seconds, key)
        sample = at_speed(sample, speed)
        if sample.duration_seconds > stage.max_seconds:
            return None
        target = self._target(sample, key)
        if target is None:
            self._leave_out(sample, "text too long for the decoder")
            return None
        full = random.Random(f"{key}-window").random() < stage.full_windows
        return Clip(sample=sample, flac=flac, target=target, full_window=full, key=key, speed=speed)

    def _leave_out(self, sample: Sample, reason: str) -> None:
        if sample.id not in self._left_out:
            self._left_out.add(sample.id)
            logger.warning("left out, %s: %s", reason, sample.id)

    def collate(self, clips: list[Clip]) -> Batch:
        """Turn clips into tensors."""
        window = max(clip.window_seconds for clip in clips)
        augment = self.config.augment
        features = torch.from_numpy(
            log_mels(
                (change_sound(_decoded(c), augment, c.speed, c.key) for c in clips),
                num_mels=self.processor.feature_extractor.feature_size,
                num_frames=round(window * FRAMES_PER_SECOND),
            )
        )
        for row, clip in zip(features, clips, strict=True):
            mask_features(row, clip.sample.duration_seconds, augment, clip.key)
        padding = self.processor.tokenizer.convert_tokens_to_ids("<|endoftext|>")
        inputs, labels = pad_targets([clip.target for clip in clips], padding)
        use_reference = self.config.target == "reference"
        return {
            "input_features": features,
            "decoder_input_ids": inputs,
            "labels": labels,
            "spelling": pad_spellings([label_text(c.sample, use_reference) for c in clips]),
            "ids": [clip.sample.id for clip in clips],
        }

    def _target(self, sample: Sample, key: str) -> Target | None:
        rng = random.Random(key)
        tokenizer = self.processor.tokenizer
        target = make_target(
            sample,
            tokenizer,
            use_reference=self.config.target == "reference",
            timestamps=rng.random() < self.config.timestamp_probability,
            prompted=rng.random() < self.config.prompt_probability,
            multilingual=self.multilingual,
        )
        wrong = self.config.wrong_token_probability
        if target is None or wrong == 0:
            return target
        return with_wrong_tokens(target, wrong, token_id(tokenizer, "<|endoftext|>"), rng)


def _decoded(clip: Clip) -> np.ndarray:
    try:
        return decode_flac(clip.flac)
    except AudioError as error:
        raise ValueError(
            f"the sound of {clip.sample.id} is damaged ({error}); find its shard with "
            "data.verify_checksums, and copy it again or run the pipeline again"
        ) from error


def clip_key(seed: int, epoch: int, copy: int, clip_id: str) -> str:
    """Name one appearance of a clip; everything random about it is drawn from this name."""
    return f"{seed}-{epoch}-{clip_id}" if copy == 0 else f"{seed}-{epoch}-{copy}-{clip_id}"


def stage_at(curriculum: list[Stage], batch_number: int) -> Stage:
    """Return the stage of the curriculum that a batch belongs to."""
    return max((s for s in curriculum if s.from_batch <= batch_number), key=lambda s: s.from_batch)


def length_batches(clips: list[Clip], batch_seconds: float, rng: random.Random) -> list[list[Clip]]:
    """Group clips of similar length into batches of at most `batch_seconds`, in random order.

    Similar, not the nearest: a clip meets others in every epoch.
    """
    batches: list[list[Clip]] = []

    def place(clip: Clip) -> tuple[bool, float]:
        return clip.full_window, clip.sample.duration_seconds * rng.uniform(0.9, 1.1)

    for clip in sorted(clips, key=place):
        last = [*batches[-1], clip] if batches else []
        if not last or len(last) * max(c.window_seconds for c in last) > batch_seconds:
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
