"""What is still to do is read from files alone; these are written by hand, no teacher is there."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.backlog import clean, find_backlog, find_orphans, withdraw
from pipeline.layout import Layout
from pipeline.ledger import Failure, write_failures, write_ledger
from pipeline.plan import Block, Keys, Plan
from pipeline.shards import CommitRecord, write_record

KEYS = Keys(teacher_revision="r", label_key="labels", shard_key="shards")
FAILURE = Failure(
    id="u",
    utterance_ids=("u",),
    duration_seconds=1.0,
    stage="read",
    error="AudioError",
    message="gone",
    attempts=1,
)


def block(name: str) -> Block:
    return Block(
        id=name, corpus="c", split="train", start=0, stop=1, duplicates=(),
        duration_seconds=1.0, fingerprint=f"of {name}",
    )  # fmt: skip


PLAN = Plan(keys=KEYS, corpora=(), blocks=tuple(map(block, "abc")))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def label(layout: Layout, one: Block, *failures: Failure) -> None:
    write_failures(layout.failures(KEYS.label_key, one.id), failures)
    write_ledger(layout.ledger(KEYS.label_key, one.id), [], {"fingerprint": one.fingerprint})


def commit(layout: Layout, one: Block, **changes) -> None:
    record = CommitRecord(
        block=one.id, fingerprint=one.fingerprint, label_key=KEYS.label_key,
        shard_key=KEYS.shard_key, shard=None, kept=0, rejected={"wer": 1}, failed={},
        kept_seconds=0.0,
    )  # fmt: skip
    write_record(layout.commit_record(one.id), replace(record, **changes))


def ids(blocks: tuple[Block, ...]) -> str:
    return "".join(one.id for one in blocks)


def test_a_new_output_has_everything_to_do(layout: Layout):
    backlog = find_backlog(PLAN, layout, retry_failed=False)
    assert ids(backlog.blocks) == ids(backlog.to_label) == "abc"


def test_only_what_no_committed_file_covers_is_left(layout: Layout):
    for one in PLAN.blocks[:2]:
        label(layout, one)
    commit(layout, PLAN.blocks[0])
    backlog = find_backlog(PLAN, layout, retry_failed=False)
    assert (ids(backlog.blocks), ids(backlog.to_label)) == ("bc", "c")


@pytest.mark.parametrize("change", [{"fingerprint": "other"}, {"shard_key": "other"}])
def test_a_record_of_other_input_or_options_does_not_count(layout: Layout, change):
    for one in PLAN.blocks:
        label(layout, one)
        commit(layout, one)
    commit(layout, PLAN.blocks[1], **change)
    backlog = find_backlog(PLAN, layout, retry_failed=False)
    assert (ids(backlog.blocks), ids(backlog.to_label)) == ("b", "")


def test_labels_of_another_input_are_made_again_though_the_record_is_there(layout: Layout):
    one = PLAN.blocks[0]
    label(layout, replace(one, fingerprint="other"))
    commit(layout, one)
    assert "a" in ids(find_backlog(PLAN, layout, retry_failed=False).to_label)


def test_failures_are_work_only_where_another_try_is_wanted(layout: Layout):
    for one in PLAN.blocks:
        label(layout, one, *([FAILURE] if one.id == "b" else []))
        commit(layout, one)
    assert find_backlog(PLAN, layout, retry_failed=False).blocks == ()
    backlog = find_backlog(PLAN, layout, retry_failed=True)
    assert ids(backlog.blocks) == ids(backlog.to_retry) == "b"


def test_what_is_about_to_change_is_withdrawn_and_retried_shards_stay(layout: Layout):
    for one in PLAN.blocks[:2]:
        label(layout, one, *([FAILURE] if one.id == "b" else []))
    commit(layout, PLAN.blocks[1])
    commit(layout, PLAN.blocks[2])
    layout.index.write_text("{}")
    withdraw(find_backlog(PLAN, layout, retry_failed=True), layout)
    assert not layout.index.exists()
    assert [one.id for one in PLAN.blocks if layout.commit_record(one.id).exists()] == ["b"]


def test_nothing_to_do_withdraws_nothing(layout: Layout):
    for one in PLAN.blocks:
        label(layout, one)
        commit(layout, one)
    layout.index.write_text("{}")
    withdraw(find_backlog(PLAN, layout, retry_failed=False), layout)
    assert layout.index.exists()


def test_shards_of_blocks_that_left_the_plan_go_and_their_labels_stay(layout: Layout):
    gone = block("z")
    label(layout, gone)
    commit(layout, gone)
    layout.shard("z").write_bytes(b"tar")
    commit(layout, PLAN.blocks[0])
    layout.index.write_text("{}")
    (layout.shards / ".a.tar.x.tmp").write_text("left by a killed run")
    clean(find_orphans(PLAN, layout), layout)
    assert [path.name for path in layout.shards.iterdir()] == ["a.json"]
    assert layout.ledger(KEYS.label_key, "z").exists()
    assert not layout.index.exists()  # it spoke of the shard


def test_an_output_in_order_is_left_alone(layout: Layout):
    commit(layout, PLAN.blocks[0])
    layout.index.write_text("{}")
    clean(find_orphans(PLAN, layout), layout)
    assert layout.index.exists()
    assert layout.commit_record("a").exists()
