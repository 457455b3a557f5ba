"""Shards of finished datasets: which ones an epoch reads, and the clips in them."""

import hashlib
import itertools
import random
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from webdataset.tariterators import group_by_keys, tar_file_expander

from distill.data_config import DataConfig, ReadFilterConfig
from distill.remote import RemoteShard, is_remote, local_copy, remote_index, remote_shard
from pipeline.schema import Sample, ShardEntry, SidecarLabel, from_json, read_index, sidecar_path

T = TypeVar("T")
_MEND = "copy it again, or run the pipeline again"


@dataclass(frozen=True, kw_only=True)
class LocalShard:
    """A shard that the index of a local folder lists."""

    path: Path
    corpus: str
    num_samples: int

    def __str__(self) -> str:
        """Name it as its user does."""
        return str(self.path)


Shard = LocalShard | RemoteShard


@dataclass(frozen=True, kw_only=True)
class ShardPass:
    """One reading of a shard in an epoch."""

    path: Shard
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


def shard_paths(folders: list[str], split: str, verify: bool = False) -> list[Shard]:
    """List the shards of a split in finished datasets; `verify` compares their hashes.

    Those behind a URL are fetched when they are read, and compared then.

    Raises:
        FileNotFoundError: a folder is not a finished dataset, or lacks a shard.
        ValueError: no shard of that split has a sample, or one is not what the index says.
    """
    paths: list[Shard] = []
    splits = set()
    for folder in folders:
        index = remote_index(folder) if is_remote(folder) else read_index(folder)
        for entry in index.shards:
            splits.add(entry.split)
            if entry.split != split or not entry.num_samples:
                continue
            if is_remote(folder):
                paths.append(remote_shard(folder, entry))
            else:
                path = _checked(Path(folder) / "shards" / entry.name, entry, verify)
                shard = LocalShard(path=path, corpus=entry.corpus, num_samples=entry.num_samples)
                paths.append(shard)
    if not paths:
        raise ValueError(
            f"no samples of split {split!r} in {', '.join(folders)}; there are {sorted(splits)}"
        )
    return paths


def _checked(path: Path, entry: ShardEntry, verify: bool) -> Path:
    """Return the path of a shard that is what its index says."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, its index lists it: copy it, or run the pipeline again"
        )
    size_bytes = path.stat().st_size
    if size_bytes != entry.size_bytes:
        raise ValueError(
            f"{path} has {size_bytes} bytes, its index says {entry.size_bytes}: {_MEND}"
        )
    if verify and file_sha256(path) != entry.sha256:
        raise ValueError(
            f"{path} has another content than its index says (SHA-256 differs): {_MEND}"
        )
    return path


def labels_of(shard: Shard, folder: str, config: DataConfig) -> Path | None:
    """Return the file of other labels for a shard, or None where its own are wanted.

    Raises:
        FileNotFoundError: the dataset has no labels of that name.
        ValueError: the dataset is not in a local folder.
    """
    if not config.labels:
        return None
    if isinstance(shard, RemoteShard):
        raise ValueError(
            f"data.labels is {config.labels!r}, and {folder} is not a local folder: copy the "
            "dataset to one, or leave data.labels out"
        )
    name = shard.path.relative_to(Path(folder) / "shards")
    path = sidecar_path(folder, config.labels, str(name))
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


def read_shard(shard: Shard) -> Iterator[tuple[Sample, bytes]]:
    """Yield the clips of a shard, each with its FLAC.

    Raises:
        ValueError: the shard is damaged, or a clip lacks a member or a field.
        OSError: it could not be fetched.
    """
    path = local_copy(shard) if isinstance(shard, RemoteShard) else shard.path
    num_samples = 0
    with path.open("rb") as stream:
        try:
            members = tar_file_expander([{"url": str(path), "stream": stream}])
            for clip in group_by_keys(members):
                yield from_json(Sample, clip["json"]), clip["flac"]
                num_samples += 1
        except (tarfile.TarError, KeyError, ValueError) as error:  # ValueError: damaged JSON
            raise ValueError(f"{path} is damaged ({error}); {_MEND}") from error
    if num_samples != shard.num_samples:  # tarfile takes a damaged header for the end
        raise ValueError(
            f"{path} is damaged ({num_samples} clips, its index says {shard.num_samples}); {_MEND}"
        )


def read_corpora(shards: list[Shard]) -> list[Iterator[tuple[Sample, bytes]]]:
    """Return the clips of each corpus, read when they are asked for; raises what `read_shard` does.

    `by_turns` goes through them so that the first N clips are of all corpora.
    """
    corpora: dict[str, list[Shard]] = {}
    for shard in shards:
        corpora.setdefault(shard.corpus, []).append(shard)
    return [itertools.chain.from_iterable(map(read_shard, group)) for group in corpora.values()]


def by_turns(corpora: Iterable[Iterator[T]]) -> Iterator[T]:
    """Yield one clip of each corpus in turn, until none has another."""
    left = list(corpora)
    while left:
        for corpus in left.copy():
            try:
                yield next(corpus)
            except StopIteration:
                left.remove(corpus)
