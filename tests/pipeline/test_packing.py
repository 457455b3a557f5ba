import random

from hypothesis import given
from hypothesis import strategies as st

from pipeline.packing import GRID_SAMPLES, pack, place

Item = tuple[str, int, int]
"""Key, length in steps of the grid, number."""

LENGTHS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 120)), max_size=40)


def packed(items: list[Item], **options: int) -> list[list[Item]]:
    return pack(
        items,
        lambda item: item[1] * GRID_SAMPLES,
        lambda item: item[0],
        max_samples=100 * GRID_SAMPLES,
        **options,
    )


@given(LENGTHS, st.integers(1, 4), st.integers(0, 3))
def test_every_item_is_in_one_pack_that_is_not_too_long(items, open_packs, gap):
    numbered = [(key, length, i) for i, (key, length) in enumerate(items)]
    packs = packed(numbered, open_packs=open_packs, gap_samples=gap * GRID_SAMPLES)
    assert sorted(i for p in packs for _, _, i in p) == list(range(len(items)))
    for p in packs:
        assert len({key for key, _, _ in p}) == 1
        assert [i for _, _, i in p] == sorted(i for _, _, i in p)
        if len(p) > 1:
            assert sum(n for _, n, _ in p) + gap * (len(p) - 1) <= 100
    assert [p[0][2] for p in packs] == sorted(p[0][2] for p in packs)


@given(LENGTHS)
def test_with_one_open_pack_only_neighbours_share_it(items):
    numbered = [("a", length, i) for i, (_, length) in enumerate(items)]
    flat = [i for p in packed(numbered, open_packs=1) for _, _, i in p]
    assert flat == list(range(len(items)))


def test_the_limit_itself_fits_and_one_sample_more_does_not():
    def packs(lengths: list[int]) -> int:
        return len(pack(lengths, int, lambda _: 0, max_samples=480_000))

    assert packs([240_000, 240_000]) == 1
    assert packs([240_000, 240_001]) == 2


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=8), st.integers(0, 9_999))
def test_items_start_on_the_grid_behind_their_gap(lengths: list[int], gap: int):
    starts = place(lengths, gap)
    assert starts[0] == 0
    assert all(start % GRID_SAMPLES == 0 for start in starts)
    ends = [start + length for start, length in zip(starts, lengths, strict=True)]
    pauses = [b - a for a, b in zip(ends, starts[1:], strict=False)]
    assert all(gap <= pause < gap + GRID_SAMPLES for pause in pauses)


def test_utterances_of_seven_seconds_fill_nine_tenths_of_the_window():
    rng = random.Random(0)
    lengths = [round(rng.uniform(3, 11) * 16_000) for _ in range(2_000)]
    packs = pack(lengths, int, lambda _: 0, max_samples=480_000)
    assert sum(lengths) / (480_000 * len(packs)) > 0.9
