from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.corpora.utterance import RULE_STAGE
from pipeline.fates import Fate, count_fates, fate_of_failure
from pipeline.ledger import Failure

FATES = st.one_of(
    st.builds(Fate, st.sampled_from("abc"), st.just("kept")),
    st.builds(Fate, st.sampled_from("abc"), st.just("rejected"), st.sampled_from(["wer", "x"])),
    st.builds(Fate, st.sampled_from("abc"), st.just("failed"), st.sampled_from(["plan", "read"])),
)


def failure(stage: str, error: str) -> Failure:
    return Failure(
        id="clip", utterance_ids=("a", "b"), duration_seconds=1.0, stage=stage, error=error,
        message="", attempts=1,
    )  # fmt: skip


@given(st.lists(FATES))
def test_every_utterance_counts_once_and_every_entry_that_failed_in_planning(fates):
    unplanned = [fate for fate in fates if fate.cause == "plan"]
    planned = {fate.utterance_id for fate in fates if fate.cause != "plan"}
    assert count_fates(fates).total() == len(unplanned) + len(planned)


def test_the_best_part_of_an_utterance_decides_in_any_order():
    parts = [Fate("a", "failed", "label"), Fate("a", "rejected", "wer"), Fate("a", "kept")]
    for order in permutations(parts):
        assert count_fates(order) == {("kept", ""): 1}
    for order in permutations(parts[:2]):
        assert count_fates(order) == {("rejected", "wer"): 1}


def test_of_equally_bad_parts_the_first_names_the_cause():
    parts = [Fate("a", "rejected", "wer"), Fate("a", "rejected", "truncated")]
    assert count_fates(parts) == {("rejected", "wer"): 1}


def test_a_repeated_id_fails_beside_the_utterance_that_had_it_first():
    fates = [Fate("a", "kept"), Fate("a", "failed", "plan"), Fate("a", "failed", "plan")]
    assert count_fates(fates) == {("kept", ""): 1, ("failed", "plan"): 2}


def test_what_a_rule_turned_away_is_rejected_and_the_rest_failed():
    assert fate_of_failure(failure(RULE_STAGE, "too_long")) == Fate("a", "rejected", "too_long")
    assert fate_of_failure(failure("read", "AudioError")) == Fate("a", "failed", "read")
