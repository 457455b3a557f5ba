"""Decoder inputs and labels of one clip, built fresh each time it is drawn.

    [<|startofprev|> prompt] <|startoftranscript|> <|en|> <|transcribe|> <|notimestamps|> text <|endoftext|>

Shards hold text and segments, never prompts, so timestamps and previous text are choices of the
trainer. Special tokens are found by name: their ids differ between Whisper's generations.
"""

from dataclasses import dataclass

from transformers import WhisperTokenizer

from distill.losses import IGNORED
from pipeline.schema import MAX_CLIP_SECONDS, Sample, Segment

MAX_TARGET_TOKENS = 448
"""Whisper's decoder positions; a sequence of this many inputs fits exactly."""
MAX_PROMPT_TOKENS = MAX_TARGET_TOKENS // 2 - 1
"""Previous text kept, from its end, so that with <|startofprev|> it fills half the positions."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the decoder is given and what it should answer, position by position."""

    decoder_input_ids: tuple[int, ...]
    labels: tuple[int, ...]


def label_segments(sample: Sample, use_reference: bool) -> list[Segment]:
    """Return the timestamped text to learn: the teacher's segments, or the corpus' utterances."""
    if not use_reference:
        return list(sample.segments)
    return [
        Segment(start=u.start, end=u.start + u.duration, text=u.reference)
        for u in sample.utterances
        if u.reference.strip()
    ]


def make_target(
    sample: Sample,
    tokenizer: WhisperTokenizer,
    *,
    use_reference: bool = False,
    timestamps: bool = False,
    prompted: bool = False,
    shift_seconds: float = 0.0,
) -> Target | None:
    """Build inputs and labels, or return None where the text is too long for the decoder.

    `shift_seconds` says where the clip begins in the 30 s window. A clip without text teaches
    <|nospeech|> after the start token, and silence to a decoder that is told the language anyway.
    """
    named = tokenizer.convert_tokens_to_ids
    segments = label_segments(sample, use_reference)
    text = sample.reference if use_reference else sample.pseudo_label
    if timestamps and not segments:
        timestamps = False
    if timestamps:
        body = [
            token
            for s in segments
            for token in (
                named(timestamp(s.start + shift_seconds)),
                *_encode(tokenizer, s.text),
                named(timestamp(s.end + shift_seconds)),
            )
        ]
    else:
        body = [named("<|notimestamps|>"), *(_encode(tokenizer, text) if text.strip() else [])]
    start = [named("<|startoftranscript|>")]
    prompt: list[int] = []
    if prompted and sample.previous_pseudo_label:
        previous = _encode(tokenizer, sample.previous_pseudo_label)[-MAX_PROMPT_TOKENS:]
        prompt = [named("<|startofprev|>"), *previous]
    task = [named(f"<|{sample.language}|>"), named("<|transcribe|>")]
    tokens = [*prompt, *start, *task, *body, named("<|endoftext|>")]
    inputs, labels = tokens[:-1], tokens[1:]
    if len(inputs) > MAX_TARGET_TOKENS:
        return None
    labels[: len(prompt)] = [IGNORED] * len(prompt)
    if not text.strip():
        first = len(prompt)
        labels[first : first + 3] = [named("<|nospeech|>"), IGNORED, IGNORED]
    return Target(decoder_input_ids=tuple(inputs), labels=tuple(labels))


def timestamp(seconds: float) -> str:
    """Name the timestamp token nearest to a time, within Whisper's 0 to 30 s."""
    return f"<|{round(min(max(seconds, 0.0), MAX_CLIP_SECONDS) / 0.02) * 0.02:.2f}|>"


def _encode(tokenizer: WhisperTokenizer, text: str) -> list[int]:
    """Tokenise as Whisper does: words are preceded by a space, also the first."""
    return tokenizer(" " + text.strip(), add_special_tokens=False).input_ids
