"""Bring a repository to what it shall hold, in commits of bounded size, and see that it is so."""

import logging
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    RepoFile,
    get_token,
)
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from pipeline.files import AnyPath
from pipeline.upload.asking import PublishError, ask
from pipeline.upload.publication import MARKER, Difference, Kind, Outcome, Outgoing, Publication
from pipeline.upload.reading import exists_as, listing

logger = logging.getLogger(__name__)

COMMIT_FILES = 50
"""Files in a commit; the Hub advises 50 to 100."""

_ANYBODYS = (".gitattributes", "README.md")
"""What the Hub's own page puts into a new repository."""

Step = Outgoing | CommitOperationDelete


def check_name(repo_id: str) -> None:
    """Refuse a name that the Hub would refuse, or that leaves the owner open.

    Raises:
        ValueError: it is not OWNER/NAME of letters, digits and `-_.`, or too long.
    """
    if repo_id.count("/") != 1:
        raise ValueError(f"repo_id is {repo_id!r}; give OWNER/NAME, as on the Hub")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"repo_id {repo_id!r} would be refused by the Hub: {error}") from error


def has_token() -> bool:
    """Tell whether there is a token for the Hub."""
    return get_token() is not None


def require_token() -> None:
    """Refuse to begin what cannot be finished.

    Raises:
        PublishError: there is no token.
    """
    if not has_token():
        raise PublishError(
            "there is no token for the Hub: run `hf auth login`, or set HF_TOKEN to a token with "
            "write access (https://huggingface.co/settings/tokens)"
        )


def check_access(repo_id: str, kind: Kind, private: bool) -> None:
    """Find what will be refused before the work of preparing a publication is done.

    Raises:
        PublishError: there is no token or it is refused, the name belongs to something else, or the
            repository is more public than asked for.
        ValueError: the Hub would refuse the name.
    """
    check_name(repo_id)
    require_token()
    api = HfApi()
    _check_token(api)
    if exists_as(repo_id, kind):
        _check_visibility(api, repo_id, kind, private)


def compare(publication: Publication) -> Difference:
    """Ask the Hub what it lacks; nothing is sent.

    Without a token, everything is taken as missing.

    Raises:
        PublishError: the token is refused, or the name belongs to something else.
        ValueError: the Hub would refuse the name.
    """
    check_name(publication.repo_id)
    if not has_token():
        logger.warning("no token: compared with a repository that is empty")
        return _difference(publication, None)
    _check_token(HfApi())
    return _difference(publication, listing(publication.repo_id, publication.kind))


def publish(
    publication: Publication, *, private: bool = True, commit_files: int = COMMIT_FILES
) -> Outcome:
    """Make a repository hold a publication, and see that it does.

    Raises:
        PublishError: there is no token or it is refused, the name belongs to something else, the
            repository is more public than asked for, the Hub did not answer, or has other bytes.
        ValueError: the Hub would refuse the name, or `commit_files` is below 1.
    """
    if commit_files < 1:
        raise ValueError(f"commit_files is {commit_files}; a commit has at least one file")
    check_access(publication.repo_id, publication.kind, private)
    api = HfApi()
    remote = listing(publication.repo_id, publication.kind)
    difference = _difference(publication, remote)
    if remote is None:
        ask(
            f"create {publication.repo_id}",
            lambda: api.create_repo(
                publication.repo_id, repo_type=publication.kind, private=private, exist_ok=True
            ),
        )
    commits = list(_commits(publication, difference, remote or {}, commit_files))
    for number, steps in enumerate(commits, start=1):
        logger.info("commit %d of %d: %d files", number, len(commits), len(steps))
        _commit(api, publication, steps, f"Publish ({number} of {len(commits)})")
    _verify(api, publication)
    prefix = "datasets/" if publication.kind == "dataset" else ""
    return Outcome(
        difference=difference,
        commits=len(commits),
        url=f"{api.endpoint}/{prefix}{publication.repo_id}",
    )


def _check_token(api: HfApi) -> None:
    """Refuse a token that the Hub does not know, or that may only read."""
    account = ask("ask whose token this is", api.whoami)
    if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise PublishError(
            f"the token of {account.get('name')} may only read; make one with write access at "
            "https://huggingface.co/settings/tokens"
        )


def _difference(publication: Publication, remote: dict[str, RepoFile] | None) -> Difference:
    """Compare; refuse a repository that somebody else has filled."""
    held = remote or {}
    mine = {file.path for file in publication.all_files}
    if MARKER not in held:
        foreign = sorted(held.keys() - set(_ANYBODYS))
        if foreign:
            raise PublishError(
                f"{publication.repo_id} exists and was not published from here: it holds "
                f"{', '.join(foreign[:3])}{' and more' if len(foreign) > 3 else ''}. "
                "Give another name, so that nothing of it is lost"
            )
    send = tuple(f for f in publication.all_files if not f.is_same(held.get(f.path)))
    return Difference(
        send=send,
        delete=tuple(sorted(p for p in held if p not in mine and publication.owns(p))),
        unchanged=len(mine) - len(send),
        is_new=remote is None,
    )


def _check_visibility(api: HfApi, repo_id: str, kind: Kind, private: bool) -> None:
    """Refuse to show the world what shall be private."""
    info = ask(f"look at {repo_id}", lambda: api.repo_info(repo_id, repo_type=kind))
    if private and info.private is False:
        raise PublishError(
            f"{repo_id} is public, so what is sent would be public at once: give --private false "
            "if that is meant, or make it private in its settings"
        )
    if not private and info.private:
        logger.warning("%s is private and stays so; its settings can change that", repo_id)


def _commits(
    publication: Publication,
    difference: Difference,
    remote: dict[str, RepoFile],
    commit_files: int,
) -> Iterable[Sequence[Step]]:
    """Divide what is to be done.

    Deletions come first: the marker that replaces the one by which they are known is sent with the
    last of them or later, so an interrupted publication still knows what is left to delete.
    """
    closing = {file.path for file in publication.last}
    content = [file for file in difference.send if file.path not in closing]
    steps: list[Step] = [CommitOperationDelete(path_in_repo=path) for path in difference.delete]
    steps += content
    last = [file for file in difference.send if file.path in closing]
    if not steps and not last:
        return
    if len(steps) + len(last) <= commit_files:
        yield [*steps, *last]
        return
    changes = difference.delete or any(file.path in remote for file in content)
    if publication.seal in remote and changes and not publication.keeps_seal:
        steps.insert(0, CommitOperationDelete(path_in_repo=publication.seal))
        if publication.seal not in {file.path for file in last}:
            last += [file for file in publication.last if file.path == publication.seal]
    for start in range(0, len(steps), commit_files):
        yield steps[start : start + commit_files]
    yield last


def _commit(api: HfApi, publication: Publication, steps: Sequence[Step], message: str) -> None:
    """Send some files; what lies in a store is fetched for as long as that takes."""
    with tempfile.TemporaryDirectory(prefix="whisper-publish-") as folder:
        operations = [
            step
            if isinstance(step, CommitOperationDelete)
            else CommitOperationAdd(
                path_in_repo=step.path,
                path_or_fileobj=_at_hand(step.source, Path(folder) / str(number)),
            )
            for number, step in enumerate(steps)
        ]

        def send() -> None:
            api.create_commit(
                publication.repo_id,
                operations=operations,
                commit_message=message,
                repo_type=publication.kind,
            )

        ask(f"send files to {publication.repo_id}", send)


def _at_hand(source: AnyPath | bytes, place: Path) -> Path | bytes:
    """Return what the client can read more than once, fetched to `place` from a store."""
    if isinstance(source, Path | bytes):
        return source
    source.fs.get_file(source.path, str(place))
    return place


def _verify(api: HfApi, publication: Publication) -> None:
    """Ask the Hub for the hash of each file that it was sent."""
    remote = listing(publication.repo_id, publication.kind) or {}
    wrong = [file.path for file in publication.all_files if not file.is_same(remote.get(file.path))]
    if wrong:
        raise PublishError(
            f"the Hub has other bytes than these of {', '.join(wrong[:3])}"
            f"{' and more' if len(wrong) > 3 else ''} in {publication.repo_id}: was a file changed "
            "while it was sent? Publish again"
        )
