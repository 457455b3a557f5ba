"""Decoder inputs and labels of one clip, built fresh each time it is drawn.

    [<|startofprev|> prompt] <|startoftranscript|> <|en|> <|transcribe|>
    (<|notimestamps|> text | <|0.00|> text <|1.20|> ...) <|endoftext|>

An English-only Whisper has neither language nor task in its sequence.
Shards hold text and segments, never prompts, so timestamps and previous text are choices of the
trainer. Special tokens are found by name: their ids differ between Whisper's generations.
"""

import dataclasses
import functools
import itertools
import random
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


def label_text(sample: Sample, use_reference: bool) -> str:
    """Return the text to learn: the teacher's, or the corpus'."""
    return sample.reference if use_reference else sample.pseudo_label


def label_segments(sample: Sample, use_reference: bool) -> list[Segment]:
    """Return the timestamped text to learn: the teacher's segments, or the corpus' utterances."""
    if not use_reference:
        return [segment for segment in sample.segments if segment.text.strip()]
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
    multilingual: bool = True,
) -> Target | None:
    """Build inputs and labels, or return None where the text is too long for the decoder.

    <|notimestamps|> is given and never asked for: whoever transcribes decides it, not the decoder,
    and a teacher that never said it would give its place most of the loss. Timestamps are not asked
    for where the teacher was told to write none: what its label says of times is not its own.
    A clip without text teaches <|nospeech|> after the start token, and silence to a decoder that is
    told the language anyway.
    A prompt is cut from its front to fit what the text leaves of the decoder's positions.

    Raises:
        ValueError: the tokenizer has no token for the clip's language, or the model knows English
            only and the clip is in another language.
    """
    named = functools.partial(token_id, tokenizer)
    segments = label_segments(sample, use_reference)
    text = label_text(sample, use_reference)
    own = {} if use_reference else own_spellings(sample, tokenizer)

    def encode(said: str) -> list[int]:
        return own.get(said.strip()) or _encode(tokenizer, said)

    timed = use_reference or not sample.tokens or max(sample.tokens) > named("<|notimestamps|>")
    timestamps = timestamps and timed and bool(segments)
    if timestamps:
        body = [
            token
            for s in segments
            for token in (
                named(timestamp(s.start)),
                *encode(s.text),
                named(timestamp(s.end)),
            )
        ]
    else:
        body = [named("<|notimestamps|>"), *(encode(text) if text.strip() else [])]
    task = [f"<|{sample.language}|>", "<|transcribe|>"] if multilingual else []
    if not multilingual and sample.language != "en":
        raise ValueError(
            f"clip {sample.id} is in language {sample.language!r}, the student knows English only: "
            "set data.filter.languages: [en], or start from a multilingual student"
        )
    start = [*map(named, ("<|startoftranscript|>", *task))]
    tokens = [*start, *body, named("<|endoftext|>")]
    room = MAX_TARGET_TOKENS - (len(tokens) - 1)
    if room < 0:
        return None
    prompt: list[int] = []
    num_previous = min(room - 1, MAX_PROMPT_TOKENS)
    previous_text = sample.previous_pseudo_label or ""
    if prompted and previous_text.strip() and num_previous > 0:
        previous = _encode(tokenizer, previous_text)[-num_previous:]
        prompt = [named("<|startofprev|>"), *previous]
    tokens = [*prompt, *tokens]
    inputs, labels = tokens[:-1], tokens[1:]
    labels[: len(prompt)] = [IGNORED] * len(prompt)
    if not timestamps:
        labels[len(prompt) + len(start) - 1] = IGNORED
    if not text.strip():
        first = len(prompt)
        labels[first : first + len(start)] = [named("<|nospeech|>"), *[IGNORED] * len(task)]
    return Target(decoder_input_ids=tuple(inputs), labels=tuple(labels))


def own_spellings(sample: Sample, tokenizer: WhisperTokenizer) -> dict[str, list[int]]:
    """Return the tokens that the teacher wrote its text in, by the text: all of it, and each piece.

    Its tokenizer might spell a word otherwise, and what the teacher expects next goes by its own
    spelling. Tokens of another vocabulary give another text, which nobody asks for.
    """
    end = token_id(tokenizer, "<|endoftext|>")
    pieces: list[list[int]] = [[]]
    for token in sample.tokens:
        if token < end:
            pieces[-1].append(token)
        elif pieces[-1]:
            pieces.append([])
    pieces.append(list(itertools.chain.from_iterable(pieces)))
    return {
        tokenizer.decode(piece, clean_up_tokenization_spaces=False).strip(): piece
        for piece in pieces
        if piece
    }


def with_wrong_tokens(
    target: Target, probability: float, num_text_tokens: int, rng: random.Random
) -> Target:
    """Replace a share of the text tokens that the decoder is given; what it should answer stays.

    Ids below `num_text_tokens` are text; timestamps and the tokens of the start are left alone.
    """
    given = (
        rng.randrange(num_text_tokens)
        if token < num_text_tokens and rng.random() < probability
        else token
        for token in target.decoder_input_ids
    )
    return dataclasses.replace(target, decoder_input_ids=tuple(given))


def token_id(tokenizer: WhisperTokenizer, name: str) -> int:
    """Find a special token by its name.

    Raises:
        ValueError: the tokenizer has no such token, and would silently give another.
    """
    names = [name]
    if name == "<|nospeech|>":
        names.append("<|nocaptions|>")  # as Whisper v1 and v2 call it on the Hub
    for wanted in names:
        found = tokenizer.convert_tokens_to_ids(wanted)
        if isinstance(found, int) and tokenizer.convert_ids_to_tokens(found) == wanted:
            return found
    raise ValueError(
        f"the student's tokenizer has no token {name}; the clips may be of a language that this "
        "Whisper does not know"
    )


LETTERS = " 'abcdefghijklmnopqrstuvwxyz"
"""What the spelling loss can spell; everything else in a text is skipped."""


def letter_tokens(tokenizer: WhisperTokenizer) -> list[int]:
    """Return the tokens that stand for the blank and for each letter in the spelling loss."""
    letters = [tokenizer(letter, add_special_tokens=False).input_ids[0] for letter in LETTERS]
    return [token_id(tokenizer, "<|endoftext|>"), *letters]


def spell(text: str) -> list[int]:
    """Write a text as positions in `letter_tokens`; the first letter has position 1."""
    return [1 + LETTERS.index(letter) for letter in text.lower() if letter in LETTERS]


def timestamp(seconds: float) -> str:
    """Name the timestamp token nearest to a time, within Whisper's 0 to 30 s."""
    return f"<|{round(min(max(seconds, 0.0), MAX_CLIP_SECONDS) / 0.02) * 0.02:.2f}|>"


def _encode(tokenizer: WhisperTokenizer, text: str) -> list[int]:
    """Tokenise as Whisper does: words are preceded by a space, also the first."""
    return tokenizer(" " + text.strip(), add_special_tokens=False).input_ids
