"""How planned utterances end: kept, rejected with a reason, or failed at a stage; never twice.

A pack drops some of its utterances and keeps others, a long recording becomes many clips: so an
utterance can have several fates, and is counted once, by the best of them.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pipeline.corpora.utterance import RULE_STAGE
from pipeline.ledger import Failure

Kind = Literal["kept", "rejected", "failed"]


@dataclass(frozen=True)
class Fate:
    """How an utterance, or one part of a long one, ended."""

    utterance_id: str
    kind: Kind
    cause: str = ""
    """The reason or the stage."""


def count_fates(fates: Iterable[Fate]) -> Counter[tuple[str, str]]:
    """Count each utterance once by kind and cause.

    Of an utterance in several parts one that is kept decides, else one that is rejected. What
    failed while planning is an entry of its own: its id may be that of another.
    """
    best: dict[str, Fate] = {}
    counts: Counter[tuple[str, str]] = Counter()
    order: tuple[Kind, ...] = ("kept", "rejected", "failed")
    for fate in fates:
        if (fate.kind, fate.cause) == ("failed", "plan"):
            counts[fate.kind, fate.cause] += 1
        elif (held := best.get(fate.utterance_id)) is None or order.index(fate.kind) < order.index(
            held.kind
        ):
            best[fate.utterance_id] = fate
    counts.update((fate.kind, fate.cause) for fate in best.values())
    return counts


def fate_of_failure(failed: Failure) -> Fate:
    """Read a row of the failures: what a rule turned away counts as rejected."""
    if failed.stage == RULE_STAGE:
        return Fate(failed.utterance_ids[0], "rejected", failed.error)
    return Fate(failed.utterance_ids[0], "failed", failed.stage)
