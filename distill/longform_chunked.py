"""Long recordings in overlapping chunks that are decoded side by side (arXiv 2311.00430, 3.5).

Two neighbours hear the same few seconds, so the longest run of tokens that the end of one and the
beginning of the other have in common says where they are joined. Without such a run both are kept
whole, as `transformers` does: where they overlap is then most likely silence.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from distill.longform import Options, is_no_speech, is_silent
from distill.transcript import Draft, Job
from distill.windows import (
    TIMESTAMP_SECONDS,
    WINDOW_SAMPLES,
    Audio,
    Heard,
    Region,
    Vocabulary,
    Window,
)
from pipeline.schema import SAMPLE_RATE

_MIN_RUN = 2
"""Tokens that must agree; one alone may be any comma."""
_ROOM = 1.5
"""The overlap may hold this much more of a chunk's tokens than its share of the time."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A text token with its share of the segment that it stands in, in seconds of the recording."""

    token: int
    start: float
    end: float
    time: tuple[float, float] | None
    """When it was spoken, where that was asked for."""
    segment: int
    """Number of its segment in the chunk."""
    heard: Heard


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A stretch of a recording, in samples."""

    start: int
    length: int
    follows: bool
    """It overlaps with the chunk before it."""


def chunked(
    audio: Audio, vocabulary: Vocabulary, options: Options, chunk_seconds: float, round_size: int
) -> Job:
    """Hear a recording in chunks and join them.

    Args:
        audio: the recording.
        vocabulary: the model's.
        options: the stride stands in `options.longform`.
        chunk_seconds: length of a chunk.
        round_size: chunks that are asked for at once; what bounds the memory.

    Raises:
        ValueError: chunks overlap so far that none would hear anything new.
    """
    stride = stride_samples(chunk_seconds, options.longform.stride_seconds)
    size = min(round(chunk_seconds * SAMPLE_RATE), WINDOW_SAMPLES)
    draft = Draft(vocabulary=vocabulary, language=options.language)
    joined: list[Piece] = []
    end = 0
    previous: tuple[Chunk, int] | None = None
    windows: list[Window] = []
    chunks: list[Chunk] = []
    stretches = _stretches(audio, size, stride, options.regions)
    while True:
        windows, chunks = [], []
        wanted = 1 if draft.language is None else round_size
        while len(windows) < wanted and (chunk := next(stretches, None)) is not None:
            samples = audio.read(chunk.start, chunk.length)
            end = max(end, chunk.start + len(samples))
            if is_silent(samples):
                continue
            chunks.append(Chunk(start=chunk.start, length=len(samples), follows=chunk.follows))
            windows.append(
                Window(
                    samples=samples.copy(),
                    language=draft.language,
                    timestamps=options.timestamps,
                    words=options.words,
                )
            )
        if not windows:
            break
        heard = yield windows
        for chunk, found in zip(chunks, heard, strict=True):
            draft.note(found)
            silent = is_no_speech(found, options.longform)
            pieces = [] if silent else _pieces(found, chunk, vocabulary)
            before, num_before = previous or (chunk, 0)
            overlap = before.start + before.length - chunk.start
            if chunk.follows and previous and overlap > 0:  # silence between them was not heard
                pieces = _cut(
                    joined, pieces, num_before,
                    overlap / before.length, overlap / chunk.length,
                )  # fmt: skip
            _untangle(joined, pieces)
            joined += pieces
            previous = chunk, len(pieces)
    for group in _segments(joined):
        times = [piece.time for piece in group if piece.time is not None]
        tokens = [piece.token for piece in group]
        draft.segment(group[0].start, group[-1].end, tokens, times, group[0].heard)
    return draft.finish(end if options.num_samples is None else options.num_samples)


def stride_samples(chunk_seconds: float, stride_seconds: float | None) -> int:
    """Return how far a chunk overlaps at each side; None takes a sixth of it.

    Raises:
        ValueError: chunks overlap so far that none would hear anything new.
    """
    stride = round((chunk_seconds / 6 if stride_seconds is None else stride_seconds) * SAMPLE_RATE)
    if min(round(chunk_seconds * SAMPLE_RATE), WINDOW_SAMPLES) <= 2 * stride:
        raise ValueError(
            f"longform.stride_seconds is {stride_seconds}; it must be below half a chunk of "
            f"{chunk_seconds} s"
        )
    return stride


def _stretches(
    audio: Audio, size: int, stride: int, regions: list[Region] | None
) -> Iterator[Chunk]:
    """Cut a recording, or each stretch of speech in it, into overlapping chunks."""
    step = size - 2 * stride
    if regions is None:
        start = 0
        while True:
            if start and audio.read(start, 2 * stride + 1).size <= 2 * stride:
                return  # the chunk before has heard it all
            if audio.read(start, 1).size == 0:
                return
            yield Chunk(start=start, length=size, follows=start > 0)
            start += step
    for first, last in merge_regions(regions, size):
        start = first
        while start == first or start + 2 * stride < last:
            yield Chunk(start=start, length=min(size, last - start), follows=start > first)
            start += step


def merge_regions(regions: list[Region], size: int) -> list[Region]:
    """Join neighbouring regions of speech while they fit into a chunk of `size` samples."""
    merged: list[Region] = []
    for start, end in regions:
        if merged and end - merged[-1][0] <= size:
            merged[-1] = merged[-1][0], end
        else:
            merged.append((start, end))
    return merged


def find_join(left: list[int], right: list[int]) -> tuple[int, int]:
    """Say where two token lists that overlap are joined: the left one ends, the right one begins.

    Both positions are in the middle of the longest run that they share; where they share none, all
    of both is kept.
    """
    match = SequenceMatcher(None, left, right, autojunk=False).find_longest_match()
    if match.size < _MIN_RUN:
        return len(left), 0
    middle = match.size // 2
    return match.a + middle, match.b + middle


def _cut(
    left: list[Piece], right: list[Piece], num_last: int, left_share: float, right_share: float
) -> list[Piece]:
    """Cut both sides of a joint: the end of `left`, whose last chunk has `num_last` tokens.

    Returns:
        What is left of `right`.
    """
    at_end = min(num_last, round(num_last * min(left_share * _ROOM, 1.0)) + 4)
    at_start = min(len(right), round(len(right) * min(right_share * _ROOM, 1.0)) + 4)
    kept = len(left) - at_end
    stop, begin = find_join(
        [piece.token for piece in left[kept:]], [piece.token for piece in right[:at_start]]
    )
    del left[kept + stop :]
    return right[begin:]


def _untangle(left: list[Piece], right: list[Piece]) -> None:
    """Place the tokens at a joint whose times overlap one after the other.

    Two chunks place the same word a little differently, and without a common run both keep what
    they heard of the same seconds.
    """
    if not left or not right or left[-1].end <= right[0].start:
        return
    first, last = right[0].start, left[-1].end
    num_left = num_right = 0
    while num_left < len(left) and left[-1 - num_left].end > first:
        num_left += 1
    while num_right < len(right) and right[num_right].start < last:
        num_right += 1
    tangled = left[len(left) - num_left :] + right[:num_right]
    first = min(first, tangled[0].start)
    last = max(last, tangled[-1].end)
    edges = _edges(first, last, len(tangled), sorted(piece.start for piece in tangled))
    for number, piece in enumerate(tangled):
        start, end = edges[number], edges[number + 1]
        time = None if piece.time is None else (start, end)
        tangled[number] = replace(piece, start=start, end=end, time=time)
    left[len(left) - num_left :] = tangled[:num_left]
    right[:num_right] = tangled[num_left:]


def _pieces(heard: Heard, chunk: Chunk, vocabulary: Vocabulary) -> list[Piece]:
    """Give each text token of a chunk its share of the segment it stands in."""
    offset = chunk.start / SAMPLE_RATE
    finish = offset + chunk.length / SAMPLE_RATE
    pieces: list[Piece] = []
    held: list[int] = []
    start, segment = offset, 0

    def close(end: float) -> None:
        nonlocal held, segment
        times = heard.token_times[len(pieces) : len(pieces) + len(held)]
        times = [(offset + a, offset + b) for a, b in times]
        edges = _edges(start, max(start, end), len(held), [begins for begins, _ in times])
        for number, token in enumerate(held):
            pieces.append(
                Piece(
                    token=token,
                    start=edges[number],
                    end=edges[number + 1],
                    time=times[number] if times else None,
                    segment=segment,
                    heard=heard,
                )
            )
        held, segment = [], segment + 1

    for token in heard.tokens:
        if token >= vocabulary.first_timestamp:
            time = (token - vocabulary.first_timestamp) * TIMESTAMP_SECONDS
            close(min(offset + time, finish))
            start = min(offset + time, finish)
        elif token < vocabulary.end:
            held.append(token)
    close(finish)
    return pieces


def _edges(start: float, end: float, num_tokens: int, begins: list[float]) -> list[float]:
    """Divide a segment among its tokens, by when each begins or else evenly.

    Each has at least a tenth of an even share: a part of a segment must not have no length.
    """
    share = (end - start) / max(num_tokens, 1)
    edges = [start]
    for number in range(1, num_tokens):
        wanted = begins[number] if begins else start + number * share
        latest = end - (num_tokens - number) * share / 10
        edges.append(min(max(wanted, edges[-1] + share / 10), latest))
    return [*edges, end]


def _segments(pieces: list[Piece]) -> list[list[Piece]]:
    """Group neighbouring tokens that stand in the same segment of the same chunk."""
    groups: list[list[Piece]] = []
    for piece in pieces:
        last = groups[-1][-1] if groups else None
        if last and last.heard is piece.heard and last.segment == piece.segment:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups
