"""What is said in a recording, with its evidence, and how it is put together window by window."""

from collections.abc import Generator
from dataclasses import dataclass, field

from distill.windows import Heard, Vocabulary, Window
from pipeline.schema import SAMPLE_RATE


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word with its place in the recording, in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, kw_only=True)
class TranscriptSegment:
    """A piece of a transcript with its place in the recording, in seconds, and its evidence."""

    start: float
    end: float
    text: str
    tokens: tuple[int, ...] = ()
    words: tuple[Word, ...] = ()
    avg_logprob: float = 0.0
    no_speech_prob: float = 0.0
    compression_ratio: float = 0.0
    temperature: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """What is said in a recording."""

    text: str
    language: str
    language_probability: float
    duration_seconds: float
    segments: tuple[TranscriptSegment, ...]
    num_steps: int = 0
    """Steps of the decoder, summed over windows."""
    num_drafted: int = 0
    num_accepted: int = 0


@dataclass(kw_only=True)
class Draft:
    """A transcript that is being written."""

    vocabulary: Vocabulary
    language: str | None
    language_probability: float = 1.0
    segments: list[TranscriptSegment] = field(default_factory=list)
    num_steps: int = 0
    num_drafted: int = 0
    num_accepted: int = 0

    def note(self, heard: Heard) -> None:
        """Count a window, and settle the language by the first one."""
        if self.language is None:
            self.language = heard.language
            self.language_probability = heard.language_probability
        self.num_steps += heard.num_steps
        self.num_drafted += heard.num_drafted
        self.num_accepted += heard.num_accepted

    def segment(
        self,
        start: float,
        end: float,
        tokens: list[int],
        times: list[tuple[float, float]],
        heard: Heard,
    ) -> None:
        """Append text tokens spoken from `start` to `end`; `times` are theirs in the recording."""
        text = self.vocabulary.decode(tokens).strip()
        if not text or end <= start:
            return
        words = []
        if times:
            first = 0
            for group in self.vocabulary.split_words(tokens, self.language or "en"):
                last = first + len(group) - 1
                word = self.vocabulary.decode(group).strip()
                if word:
                    begins = min(max(times[first][0], start), end)
                    ends = min(max(times[last][1], begins), end)
                    words.append(Word(start=round(begins, 2), end=round(ends, 2), text=word))
                first = last + 1
        self.segments.append(
            TranscriptSegment(
                start=round(start, 2), end=round(end, 2), text=text, tokens=tuple(tokens),
                words=tuple(words), avg_logprob=round(heard.avg_logprob, 4),
                no_speech_prob=round(heard.no_speech_prob, 4),
                compression_ratio=round(heard.compression_ratio, 4),
                temperature=heard.temperature,
            )
        )  # fmt: skip

    def finish(self, num_samples: int, text: str | None = None) -> Transcript:
        """Return the transcript."""
        tokens = [token for segment in self.segments for token in segment.tokens]
        return Transcript(
            text=self.vocabulary.decode(tokens).strip() if text is None else text,
            language=self.language or "",
            language_probability=round(self.language_probability, 4),
            duration_seconds=round(num_samples / SAMPLE_RATE, 3),
            segments=tuple(self.segments),
            num_steps=self.num_steps,
            num_drafted=self.num_drafted,
            num_accepted=self.num_accepted,
        )


Job = Generator[list[Window], list[Heard], Transcript]
"""An algorithm at work on one recording."""
