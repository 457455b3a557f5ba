"""Say which words of a label belong to which utterance of its clip.

A packed clip is labelled once, as one text. Aligning that text with the references, one after the
other, attributes every word of the label to one utterance, so each can be judged by itself: a bad
utterance neither hides in a good pack nor sinks it. The same alignment, the other way round, cuts
the reference of a long recording into the references of its clips.
"""

import itertools
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from pipeline.scoring import CHARACTER_LANGUAGES, language_code, normalize


def attribute(text: str, parts: Sequence[str], language: str) -> list[str]:
    """Cut `text` into one piece for each of `parts`, where their best alignment says.

    Words are compared as the scoring compares them, the minimum edit distance decides. Words that
    are in no part go to the neighbour that is itself in error at that place, and to the earlier one
    where neither or both are: a text that goes astray rarely does so at the very word where the
    next utterance begins. Pieces are stripped; joined, they have every word of the text once.

    Args:
        text: what was said in all parts together.
        parts: for each part a text of what was said in it, in order; may be empty.
        language: code or name, as `scoring.score` takes it.
    """
    if len(parts) == 1:
        return [text.strip()]
    code = language_code(language)
    owners = [number for number, part in enumerate(parts) for _ in _units(part, code)]
    wanted = [word for part in parts for _, word in _units(part, code)]
    given = _units(text, code)
    last_units = _attributed([word for _, word in given], wanted, owners, len(parts))
    ends = [given[last - 1][0] if last else 0 for last in last_units]
    ends[-1] = len(text)
    starts = [0, *ends[:-1]]
    return [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]


def _units(text: str, code: str) -> list[tuple[int, str]]:
    """Return the words of a text, or its characters, normalised, with where each ends in the text.

    A word that normalises to nothing, such as a dash, is no unit and stays with the word before.
    """
    if code in CHARACTER_LANGUAGES:
        spans = [(i, i + 1) for i, character in enumerate(text) if not character.isspace()]
    else:
        spans, end = [], 0
        for word in text.split():
            start = text.index(word, end)
            end = start + len(word)
            spans.append((start, end))
    units: list[tuple[int, str]] = []
    for start, end in spans:
        unit = normalize(text[start:end], code)
        if unit:
            units.append((end, unit))
        elif units:
            units[-1] = (end, units[-1][1])
    return units


def _attributed(
    given: Sequence[str], wanted: Sequence[str], owners: Sequence[int], num_parts: int
) -> list[int]:
    """Return for each part how many of the `given` units lie in it or in a part before it."""
    opcodes = Levenshtein.opcodes(given, wanted)
    correct = [False] * len(wanted)
    for block in opcodes:
        if block.tag == "equal":
            correct[block.dest_start : block.dest_end] = [True] * (
                block.dest_end - block.dest_start
            )
    counts = [0] * num_parts
    for block in opcodes:
        if block.tag in ("equal", "replace"):
            for owner in owners[block.dest_start : block.dest_end]:
                counts[owner] += 1
        elif block.tag == "delete":
            owner = _owner_of_extra(block.dest_start, owners, correct, num_parts)
            counts[owner] += block.src_end - block.src_start
    return list(itertools.accumulate(counts))


def _owner_of_extra(
    place: int, owners: Sequence[int], correct: Sequence[bool], num_parts: int
) -> int:
    """Return the part that units between the wanted units `place - 1` and `place` belong to."""
    if not owners:
        return 0
    left = owners[place - 1] if place > 0 else None
    right = owners[place] if place < len(owners) else None
    if left is not None and (left == right or not correct[place - 1]):
        return left
    if right is not None and not correct[place]:
        return right
    between = range(0 if left is None else left + 1, num_parts if right is None else right)
    if between:  # a part without text, in which something was said all the same
        return between[0]
    return owners[max(place - 1, 0)]
