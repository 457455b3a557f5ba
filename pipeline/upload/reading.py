"""What a repository holds now: asked of the Hub each time, never taken from the client's cache."""

import tempfile
from pathlib import Path

from huggingface_hub import HfApi, RepoFile
from huggingface_hub.errors import LocalEntryNotFoundError

from pipeline.upload.asking import PublishError, ask
from pipeline.upload.publication import Kind


def download_text(kind: Kind, repo_id: str, path: str) -> str | None:
    """Return a small file of a repository as it is now, or None where it has none of that name.

    The client's cache is left aside: where the Hub does not answer at once, the client would give
    what it read there some time ago.

    Raises:
        PublishError: the Hub refused or did not answer.
    """
    api = HfApi()

    def fetch() -> str | None:
        if not api.file_exists(repo_id, path, repo_type=kind):
            return None
        with tempfile.TemporaryDirectory(prefix="whisper-publish-") as folder:
            try:
                found = api.hf_hub_download(repo_id, path, repo_type=kind, cache_dir=folder)
            except LocalEntryNotFoundError as error:  # how the client wraps what the Hub answered
                raise error.__cause__ or error from None
            return Path(found).read_text(encoding="utf-8")

    return ask(f"read {path} of {repo_id}", fetch)


def list_paths(kind: Kind, repo_id: str) -> frozenset[str] | None:
    """Return the paths of all files, or None where this token, or none, is shown no repository.

    Raises:
        PublishError: the Hub refused or did not answer, or the name belongs to something else.
    """
    found = listing(repo_id, kind)
    return None if found is None else frozenset(found)


def listing(repo_id: str, kind: Kind) -> dict[str, RepoFile] | None:
    """Return the files of a repository by path, or None where there is no such repository."""
    if not exists_as(repo_id, kind):
        return None
    found = ask(
        f"list {repo_id}",
        lambda: list(HfApi().list_repo_tree(repo_id, recursive=True, repo_type=kind)),
    )
    return {entry.path: entry for entry in found if isinstance(entry, RepoFile)}


def exists_as(repo_id: str, kind: Kind) -> bool:
    """Tell whether a repository exists; refuse a name that one of another kind has."""

    def exists(as_kind: str) -> bool:
        return ask(f"look for {repo_id}", lambda: HfApi().repo_exists(repo_id, repo_type=as_kind))

    if exists(kind):
        return True
    for other in ("model", "dataset", "space"):
        if other != kind and exists(other):
            raise PublishError(
                f"{repo_id} is a {other} on the Hub and a {kind} was to be published: "
                "give another name"
            )
    return False
