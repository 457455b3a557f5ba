"""What of a clip is judged by itself: each of its utterances, with its part of the label.

Filter, report and explanation all look at a pack through `pieces`, so they mean the same. A pack
without references is one piece: nothing says which of its words are whose, and a guess would put
words of one utterance beside the sound of another.
"""

import dataclasses
from collections.abc import Sequence

from pipeline.schema import ClipUtterance, Sample, Segment
from pipeline.scoring import metric_of

_GRID_PER_SECOND = 50


def pieces(row: Sample) -> list[Sample]:
    """Return each utterance of a clip as a clip of its own; all in one without references.

    Every piece carries the evidence of the whole clip: the teacher gives none of parts of a label.
    """
    if len(row.utterances) < 2 or not row.metric:
        return [row]
    return [_piece(row, utterance) for utterance in row.utterances]


def join_texts(texts: Sequence[str], language: str) -> str:
    """Write texts one after the other, as the language separates words."""
    separator = "" if metric_of("", language) == "cer" else " "
    return separator.join(text.strip() for text in texts if text.strip())


def on_grid(seconds: float) -> float:
    """Round down to Whisper's 0.02 s."""
    return int(seconds * _GRID_PER_SECOND + 1e-6) / _GRID_PER_SECOND


def _piece(row: Sample, utterance: ClipUtterance) -> Sample:
    """Cut one utterance out of a clip."""
    return dataclasses.replace(
        row,
        id=utterance.id,
        recording=utterance.recording or row.recording,
        start_seconds=utterance.recording_start_seconds,
        duration_seconds=utterance.duration,
        utterances=(dataclasses.replace(utterance, start=0.0),),
        reference=utterance.reference,
        pseudo_label=utterance.pseudo_label,
        tokens=(),
        token_logprobs=(),
        segments=_segments(row, utterance),
        previous_pseudo_label=None,
        wer=utterance.wer,
        cer=utterance.cer,
        substitutions=utterance.substitutions,
        deletions=utterance.deletions,
        insertions=utterance.insertions,
        orthographic_wer=None,
    )


def _segments(row: Sample, utterance: ClipUtterance) -> tuple[Segment, ...]:
    """Return the teacher's segments of an utterance, or one over all of it where they overlap."""
    text = utterance.pseudo_label.strip()
    if not text:
        return ()
    end = utterance.start + utterance.duration
    inside = [s for s in row.segments if utterance.start <= (s.start + s.end) / 2 <= end]
    if join_texts([s.text for s in inside], row.language) != text:
        return (Segment(start=0.0, end=on_grid(utterance.duration), text=text),)

    def moved(seconds: float) -> float:
        return on_grid(min(max(seconds - utterance.start, 0.0), utterance.duration))

    return tuple(Segment(start=moved(s.start), end=moved(s.end), text=s.text) for s in inside)
