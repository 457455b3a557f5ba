"""Files go up once, come back as they were, and everything that can go wrong is said in words."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import upload
from pipeline.upload import Outgoing, Publication, PublishError
from tests.hub_server import (
    READ_TOKEN,
    HubServer,
    Repository,
    hub_environment,
    hub_in_process,
)

REPO = "owner/name"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_in_process(monkeypatch) as server:
        yield server


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note how long the client and ours would wait, and do not."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def publication(folder: Path, count: int = 7, repo_id: str = REPO, seed: int = 0) -> Publication:
    """Some large files, a small one, a card and a seal."""
    generator = random.Random(seed)
    files = []
    for number in range(count):
        path = folder / f"{number}.tar"
        path.write_bytes(generator.randbytes(20_000 + number))
        files.append(Outgoing(f"shards/{number}.tar", path))
    small = Outgoing("notes.txt", b"a small file, which the Hub keeps in git")
    card = Outgoing("README.md", b"---\nlicense: cc0-1.0\n---\n\n# A card\n")
    return Publication(
        repo_id=repo_id,
        kind="dataset",
        files=(upload.marker("dataset"), small, *files),
        last=(card, Outgoing("index.json", f'{{"files": {count}}}'.encode())),
        seal="index.json",
        owns=lambda path: path.startswith("shards/"),
    )


def expected(wanted: Publication) -> dict[str, bytes]:
    return {file.path: file.read() for file in wanted.all_files}


def held(repository: Repository) -> dict[str, bytes]:
    return {name: content for name, content in repository.files.items() if name[0] != "."}


def test_the_repository_then_holds_exactly_these_bytes(hub: HubServer, tmp_path: Path):
    wanted = publication(tmp_path)
    outcome = upload.publish(wanted)
    assert held(hub.repository(REPO)) == expected(wanted)
    assert len(outcome.difference.send) == len(wanted.all_files)
    assert hub.repository(REPO).private


def test_a_repository_is_public_only_when_that_is_said(hub: HubServer, tmp_path: Path):
    upload.publish(publication(tmp_path), private=False)
    assert not hub.repository(REPO).private


@pytest.mark.parametrize("commit_files", [1, 3, 50])
def test_a_commit_has_no_more_files_than_asked_for(
    hub: HubServer, tmp_path: Path, commit_files: int
):
    upload.publish(publication(tmp_path), commit_files=commit_files)
    sizes = [len(paths) for paths in hub.repository(REPO).commits]
    assert max(sizes) <= max(commit_files, 2), "card and seal belong together"
    assert sum(sizes) == 11


def test_an_unchanged_repository_is_sent_nothing(hub: HubServer, tmp_path: Path):
    upload.publish(publication(tmp_path))
    hub.requests.clear()
    outcome = upload.publish(publication(tmp_path))
    assert (outcome.difference.send, outcome.commits) == ((), 0)
    assert len(hub.uploads) == 7
    assert {method for method, _ in hub.requests} <= {"GET", "HEAD"}


def test_only_what_changed_is_sent_and_what_is_out_of_date_is_deleted(
    hub: HubServer, tmp_path: Path
):
    upload.publish(publication(tmp_path))
    wanted = publication(tmp_path, count=5)
    (tmp_path / "3.tar").write_bytes(b"another")
    outcome = upload.publish(wanted)
    assert [file.path for file in outcome.difference.send] == ["shards/3.tar", "index.json"]
    assert outcome.difference.delete == ("shards/5.tar", "shards/6.tar")
    assert held(hub.repository(REPO)) == expected(wanted)


def test_while_files_change_over_several_commits_the_seal_is_away(hub: HubServer, tmp_path: Path):
    upload.publish(publication(tmp_path))
    upload.publish(publication(tmp_path, seed=1), commit_files=2)
    states = list(hub.repository(REPO).states.values())[2:]
    assert len(states) == 5
    assert ["index.json" in state for state in states] == [False] * 4 + [True]


def test_while_files_are_only_added_the_seal_stays(hub: HubServer, tmp_path: Path):
    upload.publish(publication(tmp_path, count=2))
    upload.publish(publication(tmp_path, count=9), commit_files=2)
    assert all("index.json" in s for s in list(hub.repository(REPO).states.values())[2:])


@pytest.mark.parametrize("seed", range(10))
def test_an_upload_interrupted_anywhere_is_finished_by_the_next(
    hub: HubServer, tmp_path: Path, no_waiting: list[float], seed: int
):
    wanted = publication(tmp_path)
    generator = random.Random(seed)
    before, seen = generator.randrange(1, 30), 0

    def later(_method: str, _path: str) -> bool:
        nonlocal seen
        seen += 1
        return seen > before

    hub.fail(generator.choice(["drop", "cut"]), later, times=float("inf"))
    with pytest.raises(PublishError, match="could not"):
        upload.publish(wanted, commit_files=2)
    hub.faults.clear()
    sent_before = set(hub.uploads)
    upload.publish(wanted, commit_files=2)
    assert held(hub.repository(REPO)) == expected(wanted)
    assert len(hub.uploads) == len(set(hub.uploads)), "no large file went up twice"
    assert sent_before <= set(hub.uploads)


def test_a_process_that_is_killed_while_it_sends_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with hub_in_process(monkeypatch) as hub:
        wanted = publication(tmp_path)
        program = (
            "import sys; from pathlib import Path; from pipeline import upload\n"
            "from tests.pipeline.upload.test_upload import publication\n"
            f"upload.publish(publication(Path({str(tmp_path)!r})), commit_files=2)"
        )
        process: subprocess.Popen[bytes] | None = None

        def kill(method: str, path: str) -> bool:
            if process and method == "PUT" and len(hub.uploads) >= 3:  # two go up at once
                process.kill()
            return False

        hub.fail("drop", kill)
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=hub_environment(hub, tmp_path / "home"),
            cwd=Path(__file__).parents[3],
        )
        assert process.wait(120) != 0
        assert 0 < len(hub.uploads) < 7
        hub.faults.clear()
        upload.publish(wanted, commit_files=2)
        assert held(hub.repository(REPO)) == expected(wanted)


@pytest.mark.parametrize(
    "what",
    ["whoami", "repos/create", "tree", "preupload", "objects/batch", "/lfs/", "/commit/"],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_asked_again(
    hub: HubServer, tmp_path: Path, no_waiting: list[float], what: str, status: int
):
    hub.fail(status, lambda _, path: what in path, times=2)
    wanted = publication(tmp_path, count=3)
    upload.publish(wanted)
    assert held(hub.repository(REPO)) == expected(wanted)
    assert no_waiting


def test_a_hub_that_says_how_long_to_wait_is_given_that_long(
    hub: HubServer, tmp_path: Path, no_waiting: list[float]
):
    hub.fail(429, lambda _, path: "/commit/" in path, headers={"Retry-After": "17"})
    upload.publish(publication(tmp_path, count=1))
    assert max(no_waiting) >= 17


def test_a_hub_that_stays_away_ends_in_words(
    hub: HubServer, tmp_path: Path, no_waiting: list[float]
):
    hub.fail(503, times=float("inf"))
    with pytest.raises(PublishError, match="could not ask whose token this is"):
        upload.publish(publication(tmp_path))


def test_bytes_that_change_while_they_are_sent_are_noticed(hub: HubServer, tmp_path: Path):
    wanted = publication(tmp_path)
    assert [file.sha256 for file in wanted.all_files]
    path = tmp_path / "4.tar"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(PublishError, match=r"other bytes.*shards/4.tar"):
        upload.publish(wanted)


def refused(hub: HubServer, tmp_path: Path, message: str, **options: bool) -> None:
    """Publish, see it refused with these words, and that nothing was sent or made."""
    made, sent = dict(hub.repositories), len(hub.uploads)
    commits = [len(repository.commits) for repository in made.values()]
    with pytest.raises((PublishError, ValueError), match=message):
        upload.publish(publication(tmp_path), **options)
    assert hub.repositories == made
    assert len(hub.uploads) == sent
    assert [len(repository.commits) for repository in made.values()] == commits


@pytest.mark.parametrize(
    ("token", "message"),
    [(None, "no token"), ("hf_wrong", "not accept the token"), (READ_TOKEN, "may only read")],
)
def test_a_token_that_will_not_do_is_refused_before_anything_is_sent(
    hub: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    token: str | None,
    message: str,
):
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    refused(hub, tmp_path, message)
    assert "hf_wrong" not in caplog.text


def test_a_name_of_somebody_else_is_refused(hub: HubServer, tmp_path: Path):
    with pytest.raises(PublishError, match="may not write there"):
        upload.publish(publication(tmp_path, repo_id="somebody/name"))
    assert not hub.repositories


@pytest.mark.parametrize("name", ["name", "owner/na me", "owner/name.git", "owner/a--b", "a/b/c"])
def test_a_name_that_the_hub_refuses_is_refused_without_asking_it(
    hub: HubServer, tmp_path: Path, name: str
):
    with pytest.raises(ValueError, match="repo_id"):
        upload.publish(publication(tmp_path, repo_id=name))
    assert not hub.requests


@pytest.mark.parametrize("kind", ["model", "space"])
def test_a_repository_of_another_kind_is_refused(hub: HubServer, tmp_path: Path, kind: str):
    hub.create(REPO, kind)
    refused(hub, tmp_path, f"is a {kind} on the Hub")


def test_a_repository_that_somebody_filled_by_other_means_is_refused(
    hub: HubServer, tmp_path: Path
):
    repository = hub.create(REPO)
    state = repository.states[repository.head]
    repository.commit(state | {"data.csv": state[".gitattributes"]}, ["data.csv"])
    refused(hub, tmp_path, r"holds data.csv")


def test_a_repository_that_the_owner_made_by_hand_and_left_empty_is_filled(
    hub: HubServer, tmp_path: Path
):
    repository = hub.create(REPO)
    state = repository.states[repository.head]
    repository.commit(state | {"README.md": state[".gitattributes"]}, ["README.md"])
    upload.publish(publication(tmp_path))
    assert held(hub.repository(REPO)) == expected(publication(tmp_path))


def test_what_shall_be_private_is_not_sent_to_a_public_repository(hub: HubServer, tmp_path: Path):
    hub.create(REPO, private=False)
    refused(hub, tmp_path, "is public")
    upload.publish(publication(tmp_path), private=False)


def test_a_card_that_the_hub_does_not_accept_is_refused_before_its_commit(
    hub: HubServer, tmp_path: Path
):
    wanted = publication(tmp_path)
    card = Outgoing("README.md", b"---\nlicense: made-up\n---\n")
    with pytest.raises((PublishError, ValueError), match="license"):
        upload.publish(
            Publication(
                repo_id=REPO,
                kind="dataset",
                files=wanted.files,
                last=(card,),
                seal="README.md",
                owns=wanted.owns,
            )
        )
    assert not hub.repository(REPO).commits


def test_a_comparison_lists_what_would_go_up_and_asks_only(hub: HubServer, tmp_path: Path):
    difference = upload.compare(publication(tmp_path))
    assert [f.path for f in difference.send] == [f.path for f in publication(tmp_path).all_files]
    assert difference.is_new
    assert not hub.repositories
    listed, card = upload.describe(difference).split("\n\nREADME.md:\n\n")
    lines = listed.splitlines()
    assert len(lines) == 12
    assert lines[-1].startswith("11 files would be sent")
    assert card == "---\nlicense: cc0-1.0\n---\n\n# A card\n"
    upload.publish(publication(tmp_path))
    assert "0 files would be sent" in upload.describe(upload.compare(publication(tmp_path)))


def test_a_comparison_without_a_token_is_with_nothing(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("HF_TOKEN")
    assert len(upload.compare(publication(tmp_path)).send) == 11
    assert not hub.requests


def test_a_publication_without_files_in_a_commit_is_refused(hub: HubServer, tmp_path: Path):
    with pytest.raises(ValueError, match="commit_files is 0"):
        upload.publish(publication(tmp_path), commit_files=0)
