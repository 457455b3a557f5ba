"""Where a published dataset's files lie, within the limits of the Hub.

    README.md           the card; its metadata names the files of each corpus and split
    index.json          with the shards' new names, so that a downloaded copy can be trained on
    card.json           the numbers of the card, for programs and for adding a split later
    publication.json    says that the repository was made here
    shards/<corpus>/<split>/<block>.tar
    labels@<name>/<corpus>/<split>/<block>.jsonl    other teachers' labels, where there are any

A folder takes at most 5000 shards, the next ones are in `part-001` and so on. Which folder a shard
is in depends on its number alone, so nothing moves when a dataset grows.
"""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from pipeline.schema import Index, ShardEntry
from pipeline.upload import public_name

INDEX, CARD, FACTS = "index.json", "README.md", "card.json"

MAX_FOLDER_FILES = 5000
"""The Hub takes 10 000 entries in a folder."""
MAX_FILES = 100_000
"""What the Hub advises for a repository."""
MAX_FILE_BYTES = 50 * 10**9

_NUMBER = re.compile(r"-(\d+)\.tar$")
_SHARD = re.compile(r"shards/[\w-]+/[\w-]+/(part-\d{3,}/)?[\w-]+\.tar")


def published_entry(entry: ShardEntry) -> ShardEntry:
    """Return the entry with the name that the shard has below `shards/` in the repository."""
    found = _NUMBER.search(entry.name)
    part = int(found[1]) // MAX_FOLDER_FILES if found else 0
    folder = f"part-{part:03d}/" if part else ""
    return dataclasses.replace(entry, name=f"{entry.corpus}/{entry.split}/{folder}{entry.name}")


def path_of(entry: ShardEntry) -> str:
    """Return the path of a published shard."""
    return f"shards/{entry.name}"


def is_shard(path: str) -> bool:
    """Tell whether a path of a repository is that of a published shard."""
    return _SHARD.fullmatch(path) is not None


def published_index(index: Index, entries: Iterable[ShardEntry]) -> Index:
    """Return the index as it is published: the given shards, and no local paths."""
    teacher = dict(index.teacher)
    if "model" in teacher:
        teacher["model"] = public_name(str(teacher["model"]))
    options = {
        name: [public_name(v) for v in value]
        if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
        else public_name(value)
        if isinstance(value, str)
        else value
        for name, value in index.filter.items()
    }
    return dataclasses.replace(index, teacher=teacher, filter=options, shards=tuple(entries))


def split_name(split: str) -> str:
    """Return a split's name as `datasets` allows it: letters, digits and underscores."""
    return split.replace("-", "_")


def check_limits(entries: Iterable[ShardEntry]) -> None:
    """Refuse what the Hub does not take, or what could not be told apart there.

    Raises:
        ValueError: a shard is too large, there are too many, or two splits share a name.
    """
    entries = list(entries)
    large = [entry.name for entry in entries if entry.size_bytes > MAX_FILE_BYTES]
    if large:
        raise ValueError(
            f"{large[0]} is larger than {MAX_FILE_BYTES / 1e9:.0f} GB, which the Hub does not "
            "take; run again with smaller blocks.minutes"
        )
    if len(entries) > MAX_FILES:
        raise ValueError(
            f"{len(entries)} shards; a repository holds {MAX_FILES} files at most. Run again with "
            "larger blocks.minutes, or publish the corpora apart"
        )
    names: dict[str, str] = {}
    for split in sorted({entry.split for entry in entries}):
        other = names.setdefault(split_name(split), split)
        if other != split:
            raise ValueError(
                f"the splits {other!r} and {split!r} have the same name on the Hub, "
                f"{split_name(split)!r}; rename one in the config"
            )


def configurations(entries: Iterable[ShardEntry]) -> list[dict[str, Any]]:
    """Return what the card's metadata calls `configs`: everything, then each corpus by itself."""
    entries = list(entries)
    corpora = sorted({entry.corpus for entry in entries})
    configs = [{"config_name": "default", "default": True, "data_files": _data_files(entries)}]
    for corpus in corpora:
        mine = [entry for entry in entries if entry.corpus == corpus]
        configs.append({"config_name": config_name(corpus), "data_files": _data_files(mine)})
    return configs


def config_name(corpus: str) -> str:
    """Return what `datasets` calls a corpus; "default" is everything."""
    return f"{corpus}-corpus" if corpus == "default" else corpus


def _data_files(entries: list[ShardEntry]) -> list[dict[str, Any]]:
    """List the folders of each split."""
    found: dict[str, set[str]] = {}
    for entry in entries:
        folder = path_of(entry).rsplit("/", 1)[0]
        found.setdefault(split_name(entry.split), set()).add(f"{folder}/*.tar")
    order = {"train": 0, "validation": 1, "dev": 1, "test": 2}
    return [
        {"split": split, "path": sorted(found[split])}
        for split in sorted(found, key=lambda name: (order.get(name, 3), name))
    ]
