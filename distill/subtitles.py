"""A transcript as a file: txt, json, srt, vtt or tsv."""

import dataclasses
import json
from collections.abc import Callable, Iterator

from distill.transcript import Transcript, TranscriptSegment, Word

_MAX_WORDS_CHARACTERS = 42
"""Of a subtitle line where words have times; the usual width of broadcast subtitles."""


def render(transcript: Transcript, kind: str) -> str:
    """Write a transcript in one of the formats; the text ends with a newline.

    Raises:
        KeyError: there is no such format.
    """
    writers: dict[str, Callable[[Transcript], str]] = {
        "txt": lambda t: t.text + "\n",
        "json": lambda t: json.dumps(dataclasses.asdict(t), ensure_ascii=False, indent=2) + "\n",
        "srt": _srt,
        "vtt": _vtt,
        "tsv": _tsv,
    }
    return writers[kind](transcript)


def _cues(transcript: Transcript) -> Iterator[tuple[float, float, str]]:
    """Yield start, end and text of what is shown at once: segments, or lines of words."""
    for segment in transcript.segments:
        if not segment.words:
            yield segment.start, segment.end, segment.text
            continue
        start, end, line = segment.words[0].start, 0.0, ""
        for word, text in _spaced_words(segment):
            if line and len((line + text).strip()) > _MAX_WORDS_CHARACTERS:
                yield start, end, line.strip()
                start, line = word.start, ""
            end, line = word.end, line + text
        yield start, end, line.strip()


def _spaced_words(segment: TranscriptSegment) -> Iterator[tuple[Word, str]]:
    """Yield words, each with the space before it that the text has: Japanese has none."""
    place = 0
    for word in segment.words:
        found = segment.text.find(word.text, place)
        yield word, word.text if found == place else f" {word.text}"
        if found >= 0:
            place = found + len(word.text)


def _srt(transcript: Transcript) -> str:
    return "".join(
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{_one_line(text)}\n\n"
        for number, (start, end, text) in enumerate(_cues(transcript), 1)
    )


def _vtt(transcript: Transcript) -> str:
    return "WEBVTT\n\n" + "".join(
        f"{_clock(start, '.')} --> {_clock(end, '.')}\n{_one_line(text)}\n\n"
        for start, end, text in _cues(transcript)
    )


def _tsv(transcript: Transcript) -> str:
    """Milliseconds, as OpenAI's Whisper writes it."""
    lines = [
        f"{round(start * 1000)}\t{round(end * 1000)}\t{_one_line(text)}\n"
        for start, end, text in _cues(transcript)
    ]
    return "start\tend\ttext\n" + "".join(lines)


def _one_line(text: str) -> str:
    """Take out what would end a cue or a field."""
    return " ".join(text.split()).replace("-->", "->")


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return (
        f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}"
        f"{point}{milliseconds % 1000:03d}"
    )
