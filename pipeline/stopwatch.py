"""Seconds of work by stage: what a run costs is said, and promised, from them."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

LABEL_STAGES = ("read", "features", "teacher", "score")
"""What it takes to label a block. Only "write" comes after: read again, encode, write the shard."""

STAGES: tuple[str, ...] = (*LABEL_STAGES, "write")


class Stopwatch:
    """Adds up how long each stage takes. Stages do not nest."""

    def __init__(self, spent: dict[str, float] | None = None) -> None:
        """Start from nothing, or from what was spent before."""
        self._seconds = defaultdict(float, spent or {})

    def __getitem__(self, stage: str) -> float:
        """Return the seconds of a stage; 0.0 where it was not reached."""
        return self._seconds[stage]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time spent in the context."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - started
