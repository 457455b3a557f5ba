"""What every kind of corpus yields: one referenced span of one recording, without its audio."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One utterance as the corpus describes it; the audio stays on disk."""

    id: str
    """Unique within its corpus and split."""
    corpus: str
    split: str
    language: str
    """ISO 639-1."""
    licence: str
    speaker: str
    """"" where unknown."""
    recording: str
    """The audio file as the corpus names it."""
    path: str
    """The audio file as it can be opened."""
    start_seconds: float
    duration_seconds: float | None
    """None where the corpus does not say: from the start to the end of the file."""
    reference: str
