"""What every kind of corpus yields: one referenced span of one recording, without its audio."""

from dataclasses import dataclass

from pipeline.ledger import Failure

RULE_STAGE = "clip"
"""Stage of what a rule turned away before it was labelled; it counts as rejected, not failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """One utterance as the corpus describes it; the audio stays where it is."""

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
    """The audio as it can be opened: a file, a URL, or an address inside a container."""
    start_seconds: float
    duration_seconds: float | None
    """None where the corpus does not say: from the start to the end of the recording."""
    reference: str | None
    """None where the corpus has no references; "" where it has them and this one is empty."""
    channel: int | None = None
    """Counted from 0; None is the mean of all."""
    estimated_seconds: float | None = None
    """A guess where measuring would cost a download; blocks are cut by it and nothing else."""

    @property
    def says_length(self) -> bool:
        """Whether the corpus tells how long it is, or at least about how long."""
        return (self.duration_seconds, self.estimated_seconds) != (None, None)


Entry = Utterance | Failure
"""What stands at a place of a corpus: an utterance, or why there is none."""
