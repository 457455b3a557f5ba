"""`whisper-pipeline publish`: a finished dataset as a repository of the Hub.

Everything is checked before anything is sent: the shards against the index, the licences, the
names, the limits of the Hub, the token. What then goes up is the shards as they are, the index
under which the trainer reads them, and a card that is computed from both.
"""

import dataclasses
import json

from pipeline import upload
from pipeline.files import AnyPath
from pipeline.publishing.card import make_card
from pipeline.publishing.config import PublishConfig
from pipeline.publishing.contents import CheckedShard, check_shards
from pipeline.publishing.facts import Facts, gather, join
from pipeline.publishing.layout import (
    CARD,
    FACTS,
    INDEX,
    check_limits,
    is_shard,
    path_of,
    published_entry,
    published_index,
)
from pipeline.publishing.licences import permitted
from pipeline.publishing.sidecars import is_sidecar, sidecar_files
from pipeline.schema import Index, from_dict, from_json, read_index, to_json
from pipeline.upload import Difference, Outcome, Outgoing, Publication, PublishError


def plan_publication(output: AnyPath, config: PublishConfig) -> Publication:
    """Check a finished dataset and say what its repository shall hold.

    Raises:
        FileNotFoundError: it is not finished, or the report or labels of a shard are missing.
        ValueError: the Hub would not take it, it does not fit to what the repository holds, a
            licence forbids it, or a signed link would be published.
        PublishError: a shard is missing or was changed, or the Hub was asked for what the
            repository holds and did not say.
    """
    upload.check_name(config.repo_id)
    index = read_index(output)
    free, held = permitted(
        check_shards(output, index), config.allow_licence, config.leave_out_forbidden
    )
    entries = [published_entry(shard.entry) for shard in free]
    index = published_index(index, entries)
    facts = gather(output, free, held)
    if config.append:
        index, facts = join(_held(config.repo_id), (index, facts))
    check_limits(index.shards)
    staying = {path_of(entry) for entry in index.shards}
    return Publication(
        repo_id=config.repo_id,
        kind="dataset",
        files=(upload.marker("dataset"), *_shard_files(free), *sidecar_files(output, free)),
        last=(
            Outgoing(FACTS, _json(facts)),
            Outgoing(CARD, make_card(index, facts, config.repo_id).encode()),
            Outgoing(INDEX, f"{to_json(index)}\n".encode()),
        ),
        seal=INDEX,
        owns=lambda path: (
            (is_shard(path) and path not in staying) or (is_sidecar(path) and not config.append)
        ),
        keeps_seal=config.append,
    )


def compare(output: AnyPath, config: PublishConfig) -> Difference:
    """Return what publishing would send and delete; nothing is sent."""
    return upload.compare(_plan(output, config))


def publish(output: AnyPath, config: PublishConfig) -> Outcome:
    """Publish a finished dataset, or a card of one that is not; nothing is sent a second time.

    Raises:
        FileNotFoundError, ValueError, PublishError: as `plan_publication` and `upload.publish`.
    """
    upload.check_access(config.repo_id, "dataset", config.private)
    return upload.publish(
        _plan(output, config),
        private=config.private,
        commit_files=config.commit_files,
    )


def _plan(output: AnyPath, config: PublishConfig) -> Publication:
    if not config.card_only:
        return plan_publication(output, config)
    # The stages know what is labelled, and bring torch along.
    from pipeline.publishing.progress_card import plan_progress

    return plan_progress(output, config)


def _shard_files(shards: tuple[CheckedShard, ...]) -> list[Outgoing]:
    return [
        Outgoing(path_of(published_entry(shard.entry)), shard.path, shard.entry.sha256)
        for shard in shards
    ]


def _held(repo_id: str) -> tuple[Index, Facts]:
    """Read index and facts of the repository that splits are added to."""
    texts = [upload.download_text("dataset", repo_id, name) for name in (INDEX, FACTS)]
    if texts[0] is None or texts[1] is None:
        raise PublishError(_why_not(repo_id, INDEX if texts[0] is None else FACTS))
    return from_json(Index, texts[0]), from_dict(Facts, json.loads(texts[1]))


def _why_not(repo_id: str, lacking: str) -> str:
    """Say what to do about a repository that has no finished dataset; never what loses one."""
    paths = upload.list_paths("dataset", repo_id)
    if paths is None and not upload.has_token():
        return (
            f"without a token the Hub shows no dataset {repo_id} to append to; if it is private, "
            "run `hf auth login`, or set HF_TOKEN"
        )
    if any(map(is_shard, paths or ())):
        return (
            f"{repo_id} holds shards and no {lacking}: a publication was stopped before its end. "
            "Finish that one first, by the command that it was begun with, and then append. This "
            "one without --append would delete those shards"
        )
    return (
        f"{repo_id} holds no finished dataset to append to: it lacks {lacking}. Publish without "
        "--append first"
    )


def _json(facts: Facts) -> bytes:
    text = json.dumps(dataclasses.asdict(facts), indent=1, ensure_ascii=False, sort_keys=True)
    return f"{text}\n".encode()
