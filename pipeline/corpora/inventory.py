"""What is noticed of a corpus while it is listed, so that it is told before anything is labelled.

An entry that makes no utterance never stops a run, but most are a mistake in the configuration or
in how the corpus was copied: the plan says how many there are, and what the first is told.
"""

import logging
from collections import Counter

from pipeline.config import CorpusConfig
from pipeline.corpora.utterance import RULE_STAGE, Entry, Utterance

logger = logging.getLogger(__name__)


class Inventory:
    """What was seen of one split of one corpus."""

    def __init__(self) -> None:
        self.licences: set[str] = set()
        self.languages: set[str] = set()
        """Of the utterances that may be labelled."""
        self.problems: Counter[str] = Counter()
        """How many entries have a problem, by error."""
        self._num_utterances = 0
        self._ids: set[str] = set()
        self._first: dict[str, str] = {}

    def note(self, entry: Entry, seconds: float, *, allowed: bool) -> bool:
        """Look at an entry and how long it is; tell whether its id was there before.

        What a rule turned away has an id like any other; what makes no utterance has none to keep.
        `allowed` is whether an utterance's licence is.
        """
        if isinstance(entry, Utterance):
            self._num_utterances += 1
            self.licences.add(entry.licence)
            if allowed:
                self.languages.add(entry.language)
            if not seconds and not entry.says_length:
                self._problem("unreadable_audio", f"{entry.path} (the run records why)")
        elif entry.stage != RULE_STAGE:
            self._problem(entry.error, entry.message)
            return False
        repeated = entry.id in self._ids
        if repeated:
            self._problem("duplicate_id", f"{entry.id!r}")
        self._ids.add(entry.id)
        return repeated

    def check(self, corpus: CorpusConfig) -> None:
        """Warn of what is wrong.

        Raises:
            ValueError: there is no utterance at all.
        """
        where = f"corpus {corpus.name!r}, split {corpus.split!r}"
        if not self._num_utterances and self.problems:
            raise ValueError(
                f"{where}, has no utterances, only {self.problems.total()} entries that make none. "
                f"The first: {next(iter(self._first.values()))}"
            )
        if not self._num_utterances:
            raise ValueError(
                f"{where}, has no utterances: kind {corpus.kind} finds none in "
                f"{corpus.path or 'the package'}"
            )
        for error, number in self.problems.items():
            logger.warning("%s: %d × %s, first %s", where, number, error, self._first[error])

    def _problem(self, error: str, message: str) -> None:
        self.problems[error] += 1
        self._first.setdefault(error, message)
