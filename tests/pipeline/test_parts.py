import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.parts import Part
from pipeline.plan import Block, Keys, Plan


def plan_of(num_blocks: int) -> Plan:
    blocks = tuple(
        Block(
            id=f"mine-train-{i:05d}",
            corpus="mine",
            split="train",
            start=i,
            stop=i + 1,
            position=str(i),
            duplicates=(),
            duration_seconds=1.0,
            fingerprint="",
        )
        for i in range(num_blocks)
    )
    return Plan(
        keys=Keys(teacher_revision="", label_key="", shard_key=""), corpora=(), blocks=blocks
    )


@given(num_blocks=st.integers(0, 40), of=st.integers(1, 12))
def test_every_block_is_in_exactly_one_part(num_blocks: int, of: int):
    plan = plan_of(num_blocks)
    parts = [Part(number=number, of=of).of_plan(plan).blocks for number in range(of)]
    assert sorted(b.id for part in parts for b in part) == [b.id for b in plan.blocks]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("number", "of"), [(-1, 2), (2, 2), (0, 0), (0, -1)])
def test_a_part_that_does_not_exist_is_refused(number: int, of: int):
    with pytest.raises(ValueError, match=r"--shard .* of --num_shards .* does not exist"):
        Part(number=number, of=of)
