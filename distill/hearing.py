"""What it is to be a recognizer: windows in, what was heard out, in the order given."""

from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Protocol

from distill.vocabulary import TokenizerVocabulary
from distill.windows import Heard, Window


class Recognizer(Protocol):
    """A model that hears windows."""

    vocabulary: TokenizerVocabulary
    name: str
    is_student: bool
    """It has fewer decoder layers than encoder layers."""

    def hear(self, windows: list[Window]) -> list[Heard]:
        """Hear windows in one batch, in the order given."""
        ...


def hear_alike(
    windows: list[Window],
    kind: Callable[[Window], Hashable],
    hear: Callable[[list[int]], list[Heard]],
) -> list[Heard]:
    """Hear windows in groups of one kind, which can be decoded together.

    Args:
        windows: of one batch.
        kind: what the windows of a group have in common.
        hear: takes the places of a group's windows, returns what was heard in them.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for place, window in enumerate(windows):
        groups[kind(window)].append(place)
    heard: dict[int, Heard] = {}
    for places in groups.values():
        heard |= dict(zip(places, hear(places), strict=True))
    return [heard[place] for place in range(len(windows))]
