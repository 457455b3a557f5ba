"""Judge each utterance of a clip, cut the bad ones out, and join good ones into new clips.

A clip that is good as a whole is kept as it was labelled. From one that is not, the utterances that
are good are kept: sound, label and timestamps are put together again without the others. Nothing
here needs the teacher.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from pipeline.context import NOTHING, Context
from pipeline.filters import FilterConfig, clip_rejection, utterance_rejection
from pipeline.packing import place
from pipeline.pieces import join_texts, on_grid, pieces
from pipeline.schema import SAMPLE_RATE, Sample, Segment
from pipeline.scoring import score

CONTINUOUS_SECONDS = 2.0
"""Clips of one recording with a longer pause between them do not continue one another."""


def decide(
    row: Sample, config: FilterConfig, context: Context = NOTHING
) -> list[tuple[Sample, str | None]]:
    """Return the pieces of a clip, each with why it is dropped, or None to keep it."""
    of_all = clip_rejection(row, config, context)
    return [(piece, of_all or utterance_rejection(piece, config, context)) for piece in pieces(row)]


def reasons(row: Sample, config: FilterConfig, context: Context = NOTHING) -> list[str | None]:
    """Return for each utterance of a clip why it is dropped, or None to keep it."""
    return [reason for piece, reason in decide(row, config, context) for _ in piece.utterances]


def keep_only(row: Sample, kept: Sequence[bool], gap_samples: int) -> Sample:
    """Cut a clip down to the utterances that are kept, at least one."""
    if all(kept):
        return row
    good = [piece for piece, keep in zip(pieces(row), kept, strict=True) if keep]
    return join(good, row.id, gap_samples)


def join(samples: Sequence[Sample], clip_id: str, gap_samples: int) -> Sample:
    """Put clips of one language, each of one utterance, together into one.

    Of the evidence the worst counts; the log-probability is the mean by length of the labels.
    """
    first = samples[0]
    lengths = [round(sample.duration_seconds * SAMPLE_RATE) for sample in samples]
    starts = [start / SAMPLE_RATE for start in place(lengths, gap_samples)]
    label = join_texts([s.pseudo_label for s in samples], first.language)
    reference = join_texts([s.reference for s in samples], first.language)
    scored = score(reference, label, first.language) if reference else None
    weights = [max(1, len(sample.pseudo_label)) for sample in samples]
    logprobs = sum(s.avg_logprob * weight for s, weight in zip(samples, weights, strict=True))
    return dataclasses.replace(
        first,
        id=clip_id,
        language_probability=min(s.language_probability for s in samples),
        speaker=first.speaker if len({s.speaker for s in samples}) == 1 else "",
        duration_seconds=starts[-1] + lengths[-1] / SAMPLE_RATE,
        utterances=tuple(
            dataclasses.replace(sample.utterances[0], start=start)
            for sample, start in zip(samples, starts, strict=True)
        ),
        reference=reference,
        pseudo_label=label,
        tokens=first.tokens if len(samples) == 1 else (),
        token_logprobs=first.token_logprobs if len(samples) == 1 else (),
        segments=tuple(
            Segment(start=on_grid(s.start + start), end=on_grid(s.end + start), text=s.text)
            for sample, start in zip(samples, starts, strict=True)
            for s in sample.segments
        ),
        wer=scored and scored.wer,
        cer=scored and scored.cer,
        substitutions=scored and scored.substitutions,
        deletions=scored and scored.deletions,
        insertions=scored and scored.insertions,
        normalizer=scored.normalizer if scored else "",
        orthographic_wer=scored and scored.orthographic_wer,
        avg_logprob=round(logprobs / sum(weights), 4),
        no_speech_prob=max(s.no_speech_prob for s in samples),
        compression_ratio=max(s.compression_ratio for s in samples),
        temperature=max(s.temperature for s in samples),
        truncated=any(s.truncated for s in samples),
    )


def with_previous(
    kept: Sequence[Sample], rows: Sequence[Sample], channels: Mapping[str, int | None]
) -> list[Sample]:
    """Give each kept clip the label of the clip that it continues.

    That is the one before it in its recording and its channel, if it ends no more than two seconds
    earlier and was kept itself, last utterance included; there is no prompt from what was judged
    bad, nor from the other side of a call.

    Args:
        kept: the clips to complete.
        rows: all clips of their recordings, as they were labelled.
        channels: of each utterance, by id.
    """
    label_by_id = {sample.id: sample for sample in kept}
    before: dict[str, Sample] = {}
    earlier: dict[tuple[str, int | None], Sample] = {}
    for row in sorted(rows, key=lambda row: (row.recording, row.start_seconds, row.id)):
        voice = row.recording, channels[row.utterances[0].id]
        if voice in earlier:
            before[row.id] = earlier[voice]
        earlier[voice] = row

    def previous(sample: Sample) -> str | None:
        row = before.get(sample.id)
        source = label_by_id.get(row.id) if row else None
        if row is None or source is None or row.utterances[-1].id != source.utterances[-1].id:
            return None
        last, first = source.utterances[-1], sample.utterances[0]
        if (last.recording, channels[last.id]) != (first.recording, channels[first.id]):
            return None
        pause = first.recording_start_seconds - (last.recording_start_seconds + last.duration)
        return source.pseudo_label if 0 <= pause + 0.02 <= CONTINUOUS_SECONDS else None

    return [dataclasses.replace(s, previous_pseudo_label=previous(s)) for s in kept]
