"""What is said of a repository to which splits are added."""

from dataclasses import replace

import pytest

from pipeline.publishing.facts import Facts, SplitFacts, join
from pipeline.schema import SCHEMA_VERSION, Index, ShardEntry, Totals

TOTALS = Totals(
    planned=10,
    kept=6,
    rejected={"wer": 3},
    failed={"read": 1},
    hours_planned=2.0,
    hours_kept=1.0,
    teacher_seconds=72.0,
    wall_seconds=50.0,
    rtfx=100.0,
    stage_seconds={"teacher": 72.0, "write": 1.0},
    padding_fraction=0.5,
    cost=4.0,
    cost_per_kept_hour=4.0,
)


def published(corpus: str, split: str, sha256: str = "0", **changes) -> tuple[Index, Facts]:
    """A dataset of one shard of one split."""
    entry = ShardEntry(
        name=f"{corpus}-{split}-00000.tar",
        corpus=corpus,
        split=split,
        num_samples=6,
        duration_seconds=3600.0,
        size_bytes=1000,
        sha256=sha256,
    )
    index = Index(
        schema_version=SCHEMA_VERSION,
        created_with="x",
        teacher={},
        decoding={},
        clips={},
        filter={},
        label_key="l",
        shard_key="s",
        shards=(entry,),
        totals=TOTALS,
    )
    facts = SplitFacts(
        corpus=corpus,
        split=split,
        planned=10,
        kept=6,
        rejected={"wer": 3},
        failed={"read": 1},
        hours_planned=2.0,
        hours_kept=1.0,
        clips=6,
        portions=(),
    )
    sweep = [{"max_wer": 0.1, "clips": 6, "hours": 1.0, "mean_wer": 0.02}]
    return replace(index, **changes), Facts(splits=(facts,), sweeps={corpus: sweep})


def test_totals_of_both_add_up_and_rates_are_of_the_whole():
    other = replace(
        TOTALS,
        rejected={"empty_label": 4},
        failed={},
        hours_planned=6.0,
        hours_kept=3.0,
        teacher_seconds=216.0,
        padding_fraction=0.1,
        cost=8.0,
    )
    index, facts = join(published("a", "train"), published("b", "train", totals=other))
    totals = index.totals
    assert (totals.planned, totals.kept) == (20, 12)
    assert (totals.rejected, totals.failed) == ({"empty_label": 4, "wer": 3}, {"read": 1})
    assert (totals.hours_planned, totals.hours_kept) == (8.0, 4.0)
    assert totals.rtfx == 100.0
    assert totals.padding_fraction == pytest.approx((0.5 * 2 + 0.1 * 6) / 8)
    assert totals.stage_seconds == {"teacher": 144.0, "write": 2.0}
    assert (totals.cost, totals.cost_per_kept_hour) == (12.0, 3.0)
    assert [shard.corpus for shard in index.shards] == ["a", "b"]
    assert [split.corpus for split in facts.splits] == ["a", "b"]
    assert facts.clips == 12


def test_without_the_price_of_one_there_is_no_price_of_both():
    free = replace(TOTALS, cost=None, cost_per_kept_hour=None)
    index, _ = join(published("a", "train"), published("b", "train", totals=free))
    assert (index.totals.cost, index.totals.cost_per_kept_hour) == (None, None)


def test_a_corpus_keeps_the_sweep_of_its_first_splits():
    old, new = published("a", "train"), published("a", "test")
    new = new[0], replace(new[1], sweeps={"a": [], "b": []})
    assert join(old, new)[1].sweeps == old[1].sweeps | {"b": []}


def test_adding_what_is_there_changes_nothing():
    both = join(published("a", "train"), published("b", "train"))
    assert join(both, published("b", "train")) == both


def test_labels_that_come_later_are_added_to_splits_that_are_there():
    index, facts = published("a", "train")
    old, new = replace(facts, labels={"b": "x"}), replace(facts, labels={"a": "y"})
    assert join((index, old), (index, new)) == (index, replace(facts, labels={"a": "y", "b": "x"}))
    joined = join((index, old), (index, new))[1].labels
    assert list(joined) == ["a", "b"], "in the order in which card.json gives them back"


def test_a_split_that_is_there_with_other_shards_is_refused():
    with pytest.raises(ValueError, match="has a-train already, with other shards"):
        join(published("a", "train"), published("a", "train", sha256="1"))


@pytest.mark.parametrize("key", ["label_key", "shard_key"])
def test_labels_of_another_teacher_or_filter_are_refused(key: str):
    with pytest.raises(ValueError, match="labelled or filtered otherwise"):
        join(published("a", "train"), published("b", "train", **{key: "other"}))
