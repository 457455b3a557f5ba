"""What a repository shall hold, and how that differs from what it holds."""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Literal, cast

from huggingface_hub import RepoFile
from huggingface_hub.utils.sha import git_hash

from pipeline.files import AnyPath

Kind = Literal["dataset", "model"]

HUB_LANGUAGES = {"jw": "jv"}
"""Where Whisper's code is not the one of ISO 639-1."""

CARD = "README.md"
MARKER = "publication.json"
"""Says that a repository was made here; sent with the first commit."""


@dataclass(frozen=True)
class Outgoing:
    """A file that a repository shall have."""

    path: str
    """In the repository."""
    source: AnyPath | bytes
    """Where its bytes are, on this disk or in a store, or the bytes."""
    known_sha256: str = ""
    """Where it has been computed already."""

    @cached_property
    def size_bytes(self) -> int:
        """How long it is."""
        source = self.source
        return len(source) if isinstance(source, bytes) else source.stat().st_size

    @cached_property
    def sha256(self) -> str:
        """The hash by which the Hub knows a large file."""
        if self.known_sha256:
            return self.known_sha256
        if isinstance(self.source, bytes):
            return sha256(self.source).hexdigest()
        with self.source.open("rb") as file:
            return file_digest(cast(Any, file), "sha256").hexdigest()

    def read(self) -> bytes:
        """Return its bytes."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()

    def is_same(self, remote: RepoFile | None) -> bool:
        """Tell whether the Hub has exactly this file."""
        if remote is None or remote.size != self.size_bytes:
            return False
        if remote.lfs is not None:
            return remote.lfs.sha256 == self.sha256
        return remote.blob_id == git_hash(self.read())


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What a repository shall hold."""

    repo_id: str
    kind: Kind
    files: tuple[Outgoing, ...]
    last: tuple[Outgoing, ...]
    """Sent with the last commit: the card and the seal."""
    seal: str
    """Path of the file without which a reader takes nothing for finished."""
    owns: Callable[[str], bool]
    """Which paths are of the kind that is published here; what else of them a repository of ours
    holds is out of date and is deleted."""
    keeps_seal: bool = False
    """What the seal on the Hub names stays there and as it is, so readers may go on to trust it."""

    @property
    def all_files(self) -> tuple[Outgoing, ...]:
        """Everything, in the order in which it is sent."""
        return (*self.files, *self.last)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What it takes to make a repository what it shall be."""

    send: tuple[Outgoing, ...]
    delete: tuple[str, ...]
    unchanged: int
    is_new: bool
    """There is no such repository yet."""

    @property
    def size_bytes(self) -> int:
        """How much is sent."""
        return sum(file.size_bytes for file in self.send)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was done."""

    difference: Difference
    commits: int
    url: str


def describe(done: Difference | Outcome) -> str:
    """Say what was done; of a mere comparison, what would be, one file in a line, and the card."""
    if isinstance(done, Outcome):
        what = done.difference
        return (
            f"{len(what.send)} files sent in {done.commits} commits, "
            f"{what.size_bytes / 1e6:.1f} MB; {len(what.delete)} deleted, {what.unchanged} "
            f"unchanged. The hash of every file on the Hub is that of the file here: {done.url}"
        )
    lines = [f"send    {file.size_bytes:>14,}  {file.path}" for file in done.send]
    lines += [f"delete  {'':>14}  {path}" for path in done.delete]
    cards = [file.read().decode() for file in done.send if file.path == CARD]
    return "\n".join(
        [
            *lines,
            f"{len(done.send)} files would be sent, {done.size_bytes / 1e6:.1f} MB; "
            f"{len(done.delete)} deleted, {done.unchanged} are there already"
            f"{'; the repository would be made' if done.is_new else ''}.",
            *(f"\n{CARD}:\n\n{card}" for card in cards),
        ]
    )


def public_name(name: str) -> str:
    """Return a model or file by its own name where it was given by a path or by a URL.

    The query of a URL may be a credential, and is left out.
    """
    if "://" in name:
        return Path(name.partition("?")[0]).name
    is_path = name.startswith(("/", "~", ".")) or name.count("/") > 1 or Path(name).exists()
    return Path(name).name if is_path else name


def marker(kind: Kind, folders: Collection[str] | None = None) -> Outgoing:
    """Return the file that says that a repository was made here, and which folders are ours."""
    fields: dict[str, Any] = {"created_with": "whisper-distillery", "kind": kind}
    if folders is not None:
        fields["folders"] = sorted(folders)
    return Outgoing(MARKER, json.dumps(fields).encode())
