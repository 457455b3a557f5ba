import dataclasses
from pathlib import Path

import pytest

from pipeline.blocks import process_block
from pipeline.layout import Layout
from pipeline.ledger import Failure, read_ledger, write_failures
from pipeline.plan import make_plan
from pipeline.shards import read_record, write_record
from pipeline.teacher import resolve_revision
from pipeline.totals import LabelBudget, TooManyFailuresError, add_up, check_budget


@pytest.fixture
def finished(corpus, configure, tones):
    config = configure(corpus(*tones(4), "{oops"))
    plan = make_plan(config, resolve_revision(config.teacher))
    for block in plan.blocks:
        process_block(block, config, plan.keys)
    return plan, Layout(Path(config.output))


def test_totals_are_the_sum_of_the_blocks(finished):
    plan, layout = finished
    totals = add_up(plan, layout, wall_seconds=1.5)
    assert len(plan.blocks) > 1
    assert (totals.planned, totals.kept, totals.rejected, totals.failed) == (5, 4, {}, {"plan": 1})
    assert totals.hours_kept == totals.hours_planned == round(7 / 3600, 4)
    assert totals.rtfx == pytest.approx(7 / totals.teacher_seconds, rel=0.01)
    assert totals.wall_seconds == 1.5


def test_missing_block_is_noticed(finished):
    plan, layout = finished
    layout.commit_record(plan.blocks[0].id).unlink()
    with pytest.raises(AssertionError, match="was not committed"):
        add_up(plan, layout, wall_seconds=0)


def test_lost_utterance_is_noticed(finished):
    plan, layout = finished
    path = layout.commit_record(plan.blocks[0].id)
    record = read_record(path)
    assert record is not None
    write_record(path, dataclasses.replace(record, kept=record.kept - 1))
    with pytest.raises(AssertionError, match="utterances, but"):
        add_up(plan, layout, wall_seconds=0)


def test_budget_counts_failures_against_the_whole_plan(finished):
    plan, layout = finished
    check_budget(layout, plan.keys, plan.num_utterances, max_failed_fraction=0.2)
    with pytest.raises(TooManyFailuresError, match=r"1 of 5 .* failed \(plan 1\)"):
        check_budget(layout, plan.keys, plan.num_utterances, max_failed_fraction=0.1)


def test_failures_of_another_teacher_do_not_count(finished):
    plan, layout = finished
    others = dataclasses.replace(plan.keys, shard_key="other")
    check_budget(layout, others, plan.num_utterances, max_failed_fraction=0)


def test_budget_of_labels_counts_what_has_none_at_all(finished):
    plan, layout = finished
    block = plan.blocks[0]
    rows, _ = read_ledger(layout.ledger(plan.keys.label_key, block.id))
    failures = [
        Failure(
            id=id, utterance_ids=(id,), duration_seconds=1.0, stage="label", error="E", message="",
            attempts=1,
        )
        for id in (rows[0].utterances[0].id, "without")
    ]  # fmt: skip
    write_failures(layout.failures(plan.keys.label_key, block.id), failures)
    LabelBudget(plan, layout, max_failed_fraction=0.4).check()
    with pytest.raises(TooManyFailuresError, match=r"2 of 5 .* failed \(label 1, plan 1\)"):
        LabelBudget(plan, layout, max_failed_fraction=0.2).check()
    changed = [dataclasses.replace(b, fingerprint="other") for b in plan.blocks]
    LabelBudget(dataclasses.replace(plan, blocks=tuple(changed)), layout, 0.0).check()
