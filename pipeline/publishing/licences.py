"""The licence gate: what may be given to others, and under which name the Hub knows it.

Only licences that are known to permit redistribution pass by themselves. "No derivatives" does not:
a clip is cut, converted and labelled. What is unknown is refused too, and whoever has read it can
allow it by name.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable

from pipeline.publishing.contents import CheckedShard

_CREATIVE_COMMONS = {
    "cc-by": ("2.0", "2.5", "3.0", "4.0"),
    "cc-by-sa": ("2.0", "2.5", "3.0", "4.0"),
    "cc-by-nc": ("2.0", "2.5", "3.0", "4.0"),
    "cc-by-nc-sa": ("2.0", "2.5", "3.0", "4.0"),
}
REDISTRIBUTABLE = frozenset(
    {f"{name}-{version}" for name, versions in _CREATIVE_COMMONS.items() for version in versions}
    | {
        "apache-2.0",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "c-uda",
        "cc0-1.0",
        "cdla-permissive-1.0",
        "cdla-permissive-2.0",
        "cdla-sharing-1.0",
        "gfdl",
        "gpl-2.0",
        "gpl-3.0",
        "mit",
        "mpl-2.0",
        "odbl",
        "odc-by",
        "pddl",
        "public-domain",
        "unlicense",
    }
)
"""SPDX names, in lower case; non-commercial and share-alike ones too, as the card names them."""

_UNKNOWN_TO_THE_HUB = frozenset(
    {"public-domain", "cc-by-sa-2.0", "cc-by-sa-2.5", "cc-by-nc-2.5", "cc-by-nc-sa-2.5"}
)


class LicenceError(ValueError):
    """Something was to be published that may not be."""


def normal_name(licence: str) -> str:
    """Return the name by which licences are compared."""
    return licence.strip().lower()


def hub_name(licence: str) -> str:
    """Return the identifier that the Hub's card metadata takes; `other` for what it has none of."""
    name = normal_name(licence)
    return name if name in REDISTRIBUTABLE - _UNKNOWN_TO_THE_HUB else "other"


def permitted(
    shards: Iterable[CheckedShard], allow: Collection[str] = (), leave_out: bool = False
) -> tuple[tuple[CheckedShard, ...], tuple[CheckedShard, ...]]:
    """Divide shards into those that may be published and those that may not.

    A shard with one clip that may not be published may not be published: it goes up as it is.

    Raises:
        LicenceError: some may not and `leave_out` is False, or none may.
    """
    allowed = REDISTRIBUTABLE | {normal_name(name) for name in allow}
    free, held = [], []
    for shard in shards:
        refused = {name for name in shard.licences if normal_name(name) not in allowed}
        (held if refused else free).append(shard)
    if held and (not leave_out or not free):
        raise LicenceError(_complaint(held, allowed, bool(free)))
    return tuple(free), tuple(held)


def _complaint(held: list[CheckedShard], allowed: Collection[str], some_are_free: bool) -> str:
    """Say what is held back and what can be done."""
    hours: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    for shard in held:
        for portion in shard.portions:
            if normal_name(portion.licence) not in allowed:
                key = shard.entry.corpus, shard.entry.split, portion.licence
                hours[key] += portion.seconds / 3600
    found = "; ".join(
        f"{corpus}-{split}: {value:.2f} h under {licence!r}"
        for (corpus, split, licence), value in sorted(hours.items())
    )
    advice = ["allow a licence that you have read with --allow_licence NAME"]
    if some_are_free:
        advice.insert(0, "publish the rest with --leave_out_forbidden")
    return (
        f"nothing was sent, because licences forbid redistribution or are not known to permit it: "
        f"{found}. You can {' or '.join(advice)}"
    )
