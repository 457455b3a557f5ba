"""Join clips, labels and scores into the rows of the ledger: facts, and no decision."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.attribution import attribute
from pipeline.clips import Heard
from pipeline.ledger import LedgerRow
from pipeline.pieces import join_texts
from pipeline.schema import SAMPLE_RATE, ClipUtterance
from pipeline.scoring import Score, metric_of, score
from pipeline.teacher import Label


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A clip with what the teacher said of it."""

    heard: Heard
    label: Label


def make_rows(labelled: Sequence[Labelled], model: str, revision: str) -> list[LedgerRow]:
    """Join clips, labels and scores into ledger rows, in the order given."""
    references = _references(labelled)
    return [
        _row(item, own, model, revision) for item, own in zip(labelled, references, strict=True)
    ]


def _references(labelled: Sequence[Labelled]) -> list[list[str | None]]:
    """Return for each clip the reference of each of its spans; None where the corpus has none.

    The reference of a long utterance is cut where its alignment with the labels of its parts says.
    """
    parts: defaultdict[str, list[int]] = defaultdict(list)
    for number, item in enumerate(labelled):
        (span, *more) = item.heard.clip.spans
        if not more and span.duration_seconds != span.utterance.duration_seconds:
            parts[span.utterance.id].append(number)
    own = [[span.utterance.reference for span in i.heard.clip.spans] for i in labelled]
    for numbers in parts.values():
        numbers.sort(key=lambda number: labelled[number].heard.clip.spans[0].start_seconds)
        reference = own[numbers[0]][0]
        if reference is None:
            continue
        labels = [labelled[number].label for number in numbers]
        texts = [label.text for label in labels]
        pieces = attribute(reference, texts, labels[0].language)
        for number, piece in zip(numbers, pieces, strict=True):
            own[number] = [piece]
    return own


def _row(item: Labelled, references: Sequence[str | None], model: str, revision: str) -> LedgerRow:
    """Make the ledger row of one clip."""
    heard, label = item.heard, item.label
    spans = heard.clip.spans
    first = spans[0].utterance
    known = [reference or "" for reference in references]
    reference = known[0] if len(known) == 1 else join_texts(known, label.language)
    scored = _score(reference, label.text, label.language)
    unlabelled = all(own is None for own in references)
    speakers = {span.utterance.speaker for span in spans}
    # Without references nothing says which words of a pack are whose; it is judged as one.
    apart = len(spans) == 1 or not unlabelled
    pieces = attribute(label.text, known, label.language) if apart else [""] * len(spans)
    utterances = []
    for span, start, length, audio_sha256, own, piece in zip(
        spans, heard.starts, heard.lengths, heard.hashes, known, pieces, strict=True
    ):
        judged = scored if len(spans) == 1 else _score(own, piece, label.language)
        utterances.append(
            ClipUtterance(
                id=span.utterance.id,
                start=start / SAMPLE_RATE,
                duration=length / SAMPLE_RATE,
                reference=own,
                recording=span.utterance.recording,
                recording_start_seconds=span.start_seconds,
                pseudo_label=piece,
                wer=judged and judged.wer,
                cer=judged and judged.cer,
                substitutions=judged and judged.substitutions,
                deletions=judged and judged.deletions,
                insertions=judged and judged.insertions,
                audio_sha256=audio_sha256,
            )
        )
    return LedgerRow(
        id=heard.clip.id,
        corpus=first.corpus,
        split=first.split,
        language=label.language,
        language_probability=label.language_probability,
        speaker=first.speaker if len(speakers) == 1 else "",
        licence=first.licence,
        recording=first.recording,
        start_seconds=spans[0].start_seconds,
        duration_seconds=heard.num_samples / SAMPLE_RATE,
        utterances=tuple(utterances),
        reference=reference,
        pseudo_label=label.text,
        tokens=label.tokens,
        segments=label.segments,
        previous_pseudo_label=None,
        wer=scored and scored.wer,
        cer=scored and scored.cer,
        metric="" if unlabelled else metric_of(reference, label.language),
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
        token_logprobs=label.token_logprobs,
        normalizer=scored.normalizer if scored else "",
        orthographic_wer=scored and scored.orthographic_wer,
    )


def _score(reference: str, text: str, language: str) -> Score | None:
    """Compare where there is something to compare with."""
    return score(reference, text, language) if reference.strip() else None
