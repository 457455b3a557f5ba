"""How a publication is divided into commits."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from huggingface_hub import CommitOperationDelete, RepoFile
from hypothesis import given
from hypothesis import strategies as st

from pipeline.upload import Outgoing, Publication
from pipeline.upload.publication import Difference
from pipeline.upload.sending import Step, _commits

SEAL = "index.json"
Commits = list[Sequence[Step]]


def file(path: str) -> Outgoing:
    return Outgoing(path, path.encode())


def held(*paths: str) -> dict[str, RepoFile]:
    return {path: RepoFile(path=path, size=1, oid="0") for path in paths}


def divide(
    send: Sequence[str],
    delete: Sequence[str],
    there: Sequence[str],
    commit_files: int,
    keeps_seal: bool = False,
) -> Commits:
    """Divide a publication of which the card is unchanged and `send` is to go up."""
    last = file("README.md"), file(SEAL)
    content = tuple(file(path) for path in dict.fromkeys((*send, *there)) if path != SEAL)
    publication = Publication(
        repo_id="o/n",
        kind="dataset",
        files=content,
        last=last,
        seal=SEAL,
        owns=lambda path: path.startswith("shards/"),
        keeps_seal=keeps_seal,
    )
    difference = Difference(
        send=tuple(map(file, send)), delete=tuple(delete), unchanged=0, is_new=not there
    )
    return [*_commits(publication, difference, held(*there), commit_files)]


def path(step: Step) -> str:
    return step.path if isinstance(step, Outgoing) else step.path_in_repo


def paths(commits: Commits, kind: type) -> list[str]:
    return [path(step) for commit in commits for step in commit if isinstance(step, kind)]


def test_what_fits_into_one_commit_is_one_with_the_seal_in_it():
    (commit,) = divide(["a", "b", SEAL], ["shards/old"], [SEAL, "a", "shards/old"], 4)
    assert [path(step) for step in commit] == ["shards/old", "a", "b", SEAL]
    assert not paths([commit[1:]], CommitOperationDelete)


def test_nothing_to_do_is_no_commit():
    assert divide([], [], [SEAL, "a"], 3) == []


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_where_readers_could_see_half_of_a_change_the_seal_is_removed_first_and_returned_last(
    change: str,
):
    send = ["a", "b", "c"] if change == "replaced" else ["b", "c", "d"]
    delete = [] if change == "replaced" else ["shards/old"]
    commits = divide(send, delete, [SEAL, "a", "shards/old"], 2)
    assert isinstance(commits[0][0], CommitOperationDelete)
    assert path(commits[0][0]) == SEAL
    assert isinstance(commits[-1][-1], Outgoing)
    assert path(commits[-1][-1]) == SEAL


def test_nothing_new_is_sent_before_everything_old_is_deleted():
    commits = divide(["b", "c"], ["shards/1", "shards/2", "shards/3"], [SEAL, "a"], 2)
    steps = [step for commit in commits for step in commit]
    first_sent = next(n for n, step in enumerate(steps) if isinstance(step, Outgoing))
    assert not any(isinstance(step, CommitOperationDelete) for step in steps[first_sent:])


def test_where_files_are_only_added_the_seal_stays():
    commits = divide(["b", "c", "d", SEAL], [], [SEAL, "a"], 2)
    assert paths(commits, CommitOperationDelete) == []
    assert path(commits[-1][-1]) == SEAL


def test_where_what_the_seal_names_stays_the_seal_stays():
    there = [SEAL, "shards/left", "shards/old"]
    commits = divide(["shards/left", "b", "c", SEAL], ["shards/old"], there, 2, keeps_seal=True)
    assert paths(commits, CommitOperationDelete) == ["shards/old"]
    assert path(commits[-1][-1]) == SEAL


@given(
    send=st.lists(st.sampled_from([f"shards/{n}" for n in range(12)]), unique=True),
    delete=st.lists(st.sampled_from([f"shards/old{n}" for n in range(6)]), unique=True),
    there=st.sets(st.sampled_from([f"shards/{n}" for n in range(12)])),
    sealed=st.booleans(),
    commit_files=st.integers(1, 8),
)
def test_every_file_is_in_one_commit_and_no_commit_is_too_large(
    send: list[str], delete: list[str], there: set[str], sealed: bool, commit_files: int
):
    remote = [*sorted(there), *delete, *([SEAL] if sealed else [])]
    commits = divide([*send, SEAL], delete, remote, commit_files)
    assert sorted(paths(commits, Outgoing)) == sorted([*send, SEAL])
    removed = paths(commits, CommitOperationDelete)
    assert sorted(set(removed) - {SEAL}) == sorted(delete)
    assert all(commits)
    assert all(len(commit) <= max(commit_files, 2) for commit in commits)
    assert path(commits[-1][-1]) == SEAL
    for before, after in pairwise(commits):
        assert len(before) == commit_files or after is commits[-1]
