"""A corpus as WebDataset tars: members that share a name up to its first dot are one sample.

The path is a folder of tars, or may hold `*` or `{000..127}`. Text, id and the like come from the
sample's `.json`, or the text from its `.txt`. Listing passes over the headers and notes where each
sample lies, so a block starts at its own byte of its own tar and a clip is read without unpacking
anything.
"""

import json
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pipeline import storage
from pipeline.config import ColumnsConfig, CorpusConfig
from pipeline.corpora.fields import Fields, bad_entry
from pipeline.corpora.folder import AUDIO_EXTENSIONS, is_resource_fork
from pipeline.corpora.utterance import Entry

USUAL = ColumnsConfig(
    audio="",
    text="text",
    id="id",
    duration="duration",
    speaker="speaker",
    language="language",
    licence="licence",
)
_MAX_TEXT_BYTES = 16 * 2**20


@dataclass(kw_only=True)
class _Sample:
    """Members of one sample, by extension."""

    name: str
    offset: int
    audio: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    row: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def read(corpus: CorpusConfig, position: str = "") -> Iterator[tuple[str, Entry]]:
    """Yield the samples of the tars.

    Raises:
        FileNotFoundError: there is no such tar.
        ValueError: a tar is compressed.
    """
    path = corpus.path
    if not path.endswith(".tar") and not storage.is_url(path) and Path(path).is_dir():
        path = storage.join(path, "*.tar")
    yield from read_tars(corpus, storage.matching(path), position)


def read_tars(
    corpus: CorpusConfig, paths: list[str], position: str = ""
) -> Iterator[tuple[str, Entry]]:
    """Yield the samples of tars in the order given; raises as `read`."""
    fields = Fields(corpus, USUAL, folder="")
    number, _, offset = position.partition(":")
    start = int(offset or 0)
    for index in range(int(number or 0), len(paths)):
        for sample in _samples(corpus, paths[index], start):
            yield f"{index}:{sample.offset}", _entry(corpus, fields, paths[index], sample)
        start = 0


def _samples(corpus: CorpusConfig, path: str, start: int) -> Iterator[_Sample]:
    """Group consecutive members; a damaged tar ends with a sample that says so."""
    if path.endswith((".gz", ".tgz", ".bz2", ".xz", ".zst")):
        raise ValueError(
            f"corpus {corpus.name!r}: {path} is compressed, so nothing in it can be reached "
            "without unpacking it all. Decompress it; audio is compressed by itself"
        )
    sample: _Sample | None = None
    offset = start
    with storage.open_file(path) as file:
        file.seek(start)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in _members(tar):
                    offset = member.offset_data + member.size
                    folder, base = posixpath.split(member.name.removeprefix("./"))
                    if member.isdir() or is_resource_fork(base):
                        continue
                    name, _, extension = base.partition(".")
                    name = posixpath.join(folder, name)
                    if sample is None or sample.name != name:
                        if sample is not None:
                            yield sample
                        sample = _Sample(name=name, offset=member.offset)
                    _take(tar, member, extension, sample)
        except (tarfile.TarError, EOFError, OSError) as error:
            if sample is not None:
                yield sample
            name = f"{posixpath.basename(path)}-{offset}"
            yield _Sample(name=name, offset=offset, problem=f"damaged tar ({error})")
            return
    if sample is not None:
        yield sample


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members without keeping those that went by, and notice a tar that just stops."""
    while (member := tar.next()) is not None:
        yield member
        cast(Any, tar).members.clear()
    file = cast(Any, tar.fileobj)
    file.seek(tar.offset)
    if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("cut off, its end mark is missing")


def _take(tar: tarfile.TarFile, member: tarfile.TarInfo, extension: str, sample: _Sample) -> None:
    """Add a member to its sample, or say why that cannot be."""
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts or "\0" in member.name:
        sample.problem = f"member {member.name!r} points outside of the tar"
    elif not member.isreg():
        sample.problem = f"member {member.name!r} is a link or a device, not a file"
    elif (kind := extension.rpartition(".")[2]) in ("json", "txt"):
        if member.size > _MAX_TEXT_BYTES:
            sample.problem = f"member {member.name!r} has {member.size} bytes of text"
            return
        data = cast(Any, tar.extractfile(member)).read()
        try:
            if kind == "txt":
                sample.row.setdefault("txt", data.decode("utf-8-sig").strip())
            else:
                value = json.loads(data)
                if not isinstance(value, dict):
                    raise ValueError("no JSON object")
                sample.row |= value
        except (ValueError, RecursionError) as error:
            sample.problem = f"member {member.name!r}: {error}"
    else:
        sample.audio[extension] = member


def _entry(corpus: CorpusConfig, fields: Fields, path: str, sample: _Sample) -> Entry:
    """Turn a sample into an utterance."""
    try:
        if sample.problem:
            raise ValueError(sample.problem)
        wanted = fields.names.audio
        found = [
            extension
            for extension in sample.audio
            if extension == wanted
            or (not wanted and f".{extension.rpartition('.')[2].lower()}" in AUDIO_EXTENSIONS)
        ]
        if not found:
            there = ", ".join([*sample.audio, *sample.row]) or "nothing"
            raise ValueError(f"no audio{f' with extension {wanted}' if wanted else ''} in {there}")
        if len(found) > 1:
            raise ValueError(
                f"several recordings: {', '.join(found)}. A sample's name ends at its first dot: "
                "if these are samples of their own, their names must hold no dot; if not, say "
                "which one is meant with columns.audio"
            )
        member = sample.audio[found[0]]
        row = sample.row
        if fields.names.text not in row and "txt" in row:
            row = row | {fields.names.text: row["txt"]}
        return fields.utterance(
            row,
            path=storage.member_address(path, member.offset_data, member.size),
            recording=f"{posixpath.basename(storage.without_credentials(path))}/{member.name}",
            default_id=sample.name,
        )
    except ValueError as error:
        message = f"{path}, sample {sample.name!r}: {error}"
        return bad_entry(corpus, "", message, "bad_sample", f"{corpus.name}-{sample.name}")
