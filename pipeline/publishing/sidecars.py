"""Other teachers' labels that lie beside the shards; each goes up where its shard does."""

import re

from pipeline.files import AnyPath
from pipeline.publishing.contents import CheckedShard, local_name, warn_of_local
from pipeline.publishing.layout import published_entry
from pipeline.schema import SidecarLabel, from_json, sidecar_path
from pipeline.upload import Outgoing, public_name

_SIDECAR = re.compile(r"labels@[\w-]+/[\w-]+/[\w-]+/(part-\d{3,}/)?[\w-]+\.jsonl")


def is_sidecar(path: str) -> bool:
    """Tell whether a path of a repository is that of published labels."""
    return _SIDECAR.fullmatch(path) is not None


def sidecar_teachers(output: AnyPath, shards: tuple[CheckedShard, ...]) -> dict[str, str]:
    """Return who said the labels of each name that lies beside the shards.

    Raises:
        ValueError: a file of labels is damaged.
    """
    found: dict[str, str] = {}
    for name in _names(output):
        for shard in shards:
            path = output / sidecar_path("", name, shard.entry.name).as_posix()
            first = path.read_bytes().partition(b"\n")[0] if path.is_file() else b""
            if first:
                label = from_json(SidecarLabel, first)
                found[name] = f"{public_name(label.teacher)} ({label.teacher_revision})"
                break
    return found


def sidecar_files(output: AnyPath, shards: tuple[CheckedShard, ...]) -> list[Outgoing]:
    """List the files of labels of the shards that are published.

    Raises:
        FileNotFoundError: labels of a shard are missing.
        ValueError: a file of labels is damaged, or has a signed link in it.
    """
    files: list[Outgoing] = []
    local: list[str] = []
    for name in _names(output):
        for shard in shards:
            path = output / sidecar_path("", name, shard.entry.name).as_posix()
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} is missing: write the labels again with `whisper-pipeline relabel`, "
                    f"or delete {path.parent}"
                )
            local.append(_local_name(path))
            there = sidecar_path("", name, published_entry(shard.entry).name).as_posix()
            files.append(Outgoing(there, path))
    warn_of_local(local)
    return files


def _local_name(path: AnyPath) -> str:
    """Return a path of this machine that labels name, or ""."""
    with path.open("rb") as lines:
        try:
            labels = [from_json(SidecarLabel, line) for line in lines]
        except ValueError as error:
            raise ValueError(
                f"{path} is damaged ({error}): write the labels again with `whisper-pipeline "
                "relabel`"
            ) from error
    return local_name(path, (name for label in labels for name in (label.teacher, label.id)))


def _names(output: AnyPath) -> list[str]:
    return sorted(path.name.removeprefix("labels@") for path in output.glob("labels@*"))
