"""Join clips, labels and scores into the rows of the ledger: facts, and no decision."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.clips import Clip
from pipeline.ledger import LedgerRow
from pipeline.schema import SAMPLE_RATE, ClipUtterance
from pipeline.scoring import metric_of, score
from pipeline.teacher import Label


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A clip with what the teacher said of it."""

    clip: Clip
    num_samples: int
    label: Label


def make_rows(labelled: Sequence[Labelled], model: str, revision: str) -> list[LedgerRow]:
    """Join clips, labels and scores into ledger rows, in the order given."""
    previous = _previous_labels(labelled)
    return [_row(item, previous[item.clip.id], model, revision) for item in labelled]


def _previous_labels(labelled: Sequence[Labelled]) -> dict[str, str]:
    """Return for each clip the label of the clip before it in its recording; "" for the first."""
    spoken = sorted(
        labelled, key=lambda i: (i.clip.utterance.path, i.clip.utterance.start_seconds, i.clip.id)
    )
    previous: dict[str, str] = {}
    path, text = "", ""
    for item in spoken:
        previous[item.clip.id] = text if item.clip.utterance.path == path else ""
        path, text = item.clip.utterance.path, item.label.text
    return previous


def _row(item: Labelled, previous: str, model: str, revision: str) -> LedgerRow:
    """Make the ledger row of one clip."""
    utterance, label = item.clip.utterance, item.label
    duration_seconds = item.num_samples / SAMPLE_RATE
    scored = None
    if utterance.reference.strip():
        scored = score(utterance.reference, label.text, label.language)
    return LedgerRow(
        id=item.clip.id,
        corpus=utterance.corpus,
        split=utterance.split,
        language=label.language,
        language_probability=label.language_probability,
        speaker=utterance.speaker,
        licence=utterance.licence,
        recording=utterance.recording,
        start_seconds=utterance.start_seconds,
        duration_seconds=duration_seconds,
        utterances=(
            ClipUtterance(
                id=utterance.id,
                start=0.0,
                duration=duration_seconds,
                reference=utterance.reference,
            ),
        ),
        reference=utterance.reference,
        pseudo_label=label.text,
        tokens=label.tokens,
        segments=label.segments,
        previous_pseudo_label=previous,
        wer=scored and scored.wer,
        cer=scored and scored.cer,
        metric=metric_of(utterance.reference, label.language),
        substitutions=scored and scored.substitutions,
        deletions=scored and scored.deletions,
        insertions=scored and scored.insertions,
        avg_logprob=label.avg_logprob,
        no_speech_prob=label.no_speech_prob,
        compression_ratio=label.compression_ratio,
        temperature=label.temperature,
        truncated=label.truncated,
        teacher=model,
        teacher_revision=revision,
    )
