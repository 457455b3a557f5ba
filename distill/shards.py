"""Shards of finished datasets: which ones an epoch reads, and the clips in them."""

import hashlib
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from webdataset.tariterators import group_by_keys, tar_file_expander

from distill.data_config import DataConfig, ReadFilterConfig
from pipeline.schema import Sample, SidecarLabel, from_json, read_index, sidecar_path


@dataclass(frozen=True, kw_only=True)
class ShardPass:
    """One reading of a shard in an epoch."""

    path: Path
    labels: Path | None = None
    """Labels that take the place of the samples' own."""
    copy: int = 0
    """0 is the first reading in the epoch; a folder of weight 2 has two."""
    share: float = 1.0
    """Share of its clips that come, others in each epoch."""


def shard_passes(config: DataConfig) -> list[ShardPass]:
    """List what an epoch reads: every shard as often as the weight of its folder says."""
    passes = []
    for folder, weight in zip(
        config.shards, config.weights or [1.0] * len(config.shards), strict=True
    ):
        paths = shard_paths([folder], config.split, config.verify_checksums)
        whole, rest = int(weight), weight - int(weight)
        shares = [1.0] * whole + [rest] * (rest > 0)
        passes += [
            ShardPass(path=path, labels=labels_of(path, folder, config), copy=copy, share=share)
            for copy, share in enumerate(shares)
            for path in paths
        ]
    return passes


def shard_paths(folders: list[str], split: str, verify: bool = False) -> list[Path]:
    """List the shards of a split in finished datasets; `verify` compares their hashes.

    Raises:
        FileNotFoundError: a folder is not a finished dataset, or lacks a shard.
        ValueError: no shard of that split has a sample, or one is not what the index says.
    """
    paths, splits = [], set()
    for folder in folders:
        for entry in read_index(folder).shards:
            splits.add(entry.split)
            if entry.split == split and entry.num_samples:
                paths.append(Path(folder) / "shards" / entry.name)
                if not paths[-1].is_file():
                    raise FileNotFoundError(
                        f"{paths[-1]} is missing, its index lists it: copy it, or run the "
                        "pipeline again"
                    )
                size_bytes = paths[-1].stat().st_size
                if size_bytes != entry.size_bytes:
                    raise ValueError(
                        f"{paths[-1]} has {size_bytes} bytes, its index says {entry.size_bytes}: "
                        "copy it again, or run the pipeline again"
                    )
                if verify and file_sha256(paths[-1]) != entry.sha256:
                    raise ValueError(
                        f"{paths[-1]} has another content than its index says (SHA-256 differs): "
                        "copy it again, or run the pipeline again"
                    )
    if not paths:
        raise ValueError(
            f"no samples of split {split!r} in {', '.join(folders)}; there are {sorted(splits)}"
        )
    return paths


def labels_of(shard: Path, folder: str, config: DataConfig) -> Path | None:
    """Return the file of other labels for a shard, or None where its own are wanted.

    Raises:
        FileNotFoundError: the dataset has no labels of that name.
    """
    if not config.labels:
        return None
    path = sidecar_path(folder, config.labels, str(shard.relative_to(Path(folder) / "shards")))
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: write it with `whisper-pipeline relabel {folder} --second "
            f"OUTPUT --name {config.labels}`, or leave data.labels out"
        )
    return path


def read_labels(path: Path) -> dict[str, SidecarLabel]:
    """Read the labels of a shard by clip.

    Raises:
        ValueError: a line is damaged.
    """
    try:
        found = [from_json(SidecarLabel, line) for line in path.read_bytes().splitlines()]
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); write it again") from error
    return {label.id: label for label in found}


def file_sha256(path: Path) -> str:
    """Return the hash of a file's content, as `index.json` lists it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def passes_filter(sample: Sample, config: ReadFilterConfig) -> bool:
    """Tell whether a clip takes part in the training."""
    rate = sample.cer if sample.metric == "cer" else sample.wer
    if config.max_wer is not None and (rate is None or rate > config.max_wer):
        return False
    for allowed, found in (
        (config.corpora, sample.corpus),
        (config.licences, sample.licence),
        (config.languages, sample.language),
    ):
        if allowed and found not in allowed:
            return False
    return config.share == 1 or random.Random(f"{sample.id}-share").random() < config.share


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
