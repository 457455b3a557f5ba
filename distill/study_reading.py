"""The few claims that a study is made for, each as strong as its interval and no stronger."""

from collections.abc import Callable, Iterator
from typing import Any

from distill.study_arms import TEACHER

ONE_POINT = 0.01
"""How near a student should come to its teacher (Distil-Whisper's claim)."""
PAPERS_GAIN = {"base": 0.113, "tiny": 0.140}
"""CER that Whisper-KDQ reports relatively below the same size without distillation."""

Pairs = dict[tuple[str, str], dict[str, Any]]


def reading(pairs: list[dict[str, Any]], base: str) -> list[str]:
    """Answer a study's questions from its comparisons; a question that was not asked is left out.

    Args:
        pairs: `pairs` of `study.json`.
        base: the student that all are compared with.
    """
    by_name = {(pair["name"], pair["against"]): pair for pair in pairs}
    claims: list[Callable[[Pairs, str], Iterator[str]]] = [
        near_its_teacher,
        worth_of_the_teacher,
        worth_of_matching,
        cost_of_bits,
        worth_of_training_on_a_grid,
        worth_of_the_recipe,
    ]
    return [sentence for claim in claims for sentence in claim(by_name, base)]


def near_its_teacher(pairs: Pairs, base: str) -> Iterator[str]:
    """Say whether the compared student is within a point of its teacher."""
    if (base, TEACHER) not in pairs:
        return
    wer = pairs[base, TEACHER]["wer"]
    if wer["high"] <= ONE_POINT:
        found = "is within one point of its teacher"
    elif wer["low"] > ONE_POINT:
        found = "is more than one point behind its teacher"
    else:
        found = "may be within one point of its teacher or not, the interval holds both"
    yield f"**Depth.** `{base}` {found}: WER {_points(wer)} points."


def worth_of_the_teacher(pairs: Pairs, base: str) -> Iterator[str]:
    """Say whether the teacher's distribution helps beside its labels."""
    if (base, "labels-only") not in pairs:
        return
    wer = pairs[base, "labels-only"]["wer"]
    found = _in_words(wer, "helps", "does harm", "is not shown to help or to harm")
    yield f"**Loss.** The teacher's distribution beside its labels {found}: WER {_points(wer)}."


def worth_of_matching(pairs: Pairs, _base: str) -> Iterator[str]:
    """Claim that dynamic matching helps only of maps whose interval is below the even map's."""
    even = "matching-uniform"
    dynamic = {
        name.removeprefix("matching-"): pair["wer"]
        for (name, against), pair in pairs.items()
        if against == even and name.startswith("matching-dynamic")
    }
    if not dynamic:
        return
    helping = [mode for mode, wer in dynamic.items() if wer["high"] < 0]
    found = "; ".join(f"{mode} {_points(wer)}" for mode, wer in dynamic.items())
    claim = (
        f"Choosing layers dynamically has fewer errors than an even map with {', '.join(helping)}"
        if helping
        else "Choosing layers dynamically is not shown to help"
    )
    yield f"**Matching.** {claim}: WER against `{even}` {found}."
    controls = {
        mode: pairs[f"matching-{mode}", even]["wer"]
        for mode in ("reverse", "random")
        if (f"matching-{mode}", even) in pairs
    }
    if controls:
        worse = [mode for mode, wer in controls.items() if wer["low"] > 0]
        found = "; ".join(f"{mode} {_points(wer)}" for mode, wer in controls.items())
        claim = (
            f"It matters which layer learns from which: {', '.join(worse)} has more errors"
            if worse
            else "It is not shown to matter which layer learns from which"
        )
        yield f"**Controls.** {claim}: WER against `{even}` {found}."


def cost_of_bits(pairs: Pairs, base: str) -> Iterator[str]:
    """Say what a grid costs, rounded or trained."""
    for (name, against), pair in pairs.items():
        preset, _, kind = name.rpartition("-")
        if against == base and kind in ("rounded", "trained") and preset:
            wer = pair["wer"]
            found = _in_words(wer, "costs nothing and gains", "costs accuracy", "no cost is shown")
            yield f"**Bits.** `{name}`: {found}, WER {_points(wer)} against float weights."


def worth_of_training_on_a_grid(pairs: Pairs, _base: str) -> Iterator[str]:
    """Say whether training on a grid is better than rounding to it."""
    for (name, against), pair in pairs.items():
        preset = name.removesuffix("-trained")
        if name.endswith("-trained") and against == f"{preset}-rounded":
            wer = pair["wer"]
            found = _in_words(wer, "is better", "is worse", "is not shown to be better")
            yield f"**{preset}.** Training on the grid {found} than rounding: WER {_points(wer)}."


def worth_of_the_recipe(pairs: Pairs, base: str) -> Iterator[str]:
    """Hold distilled students against the same size without a teacher, as Whisper-KDQ does."""
    papers = " and ".join(f"{100 * gain:.1f} % ({size})" for size, gain in PAPERS_GAIN.items())
    for name, against in [
        *((n, a) for n, a in pairs if n.endswith("-matched") and a.endswith("-labels-only")),
        *((n, a) for n, a in pairs if (n, a) == (base, "labels-only")),
    ]:
        cer = pairs[name, against]["cer"]
        low, high = cer["relative_low"], cer["relative_high"]
        aim = -PAPERS_GAIN["base"]
        if high <= aim:
            found = "reaches what the paper reports"
        elif low > aim:
            found = "does not reach what the paper reports"
        else:
            found = "neither reaches nor misses for certain what the paper reports"
        yield (
            f"**Distilled against the same size without a teacher.** `{name}`: CER "
            f"{100 * cer['relative']:+.1f} % relatively to `{against}` ({100 * low:+.1f} to "
            f"{100 * high:+.1f}), which {found}: {papers} below."
        )


def _in_words(difference: dict[str, float], less: str, more: str, neither: str) -> str:
    if difference["high"] < 0:
        return less
    return more if difference["low"] > 0 else neither


def _points(difference: dict[str, float]) -> str:
    value, low, high = (f"{100 * difference[name]:+.1f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
