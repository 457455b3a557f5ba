"""A corpus as a JSONL manifest with NeMo's field names, one utterance a line.

`audio_filepath` (relative to the manifest) and `text` are required; `id`, `duration`, `offset`,
`speaker` and `lang` are optional. A line that does not fit becomes a failure and not an exception:
one bad line in a million must not cost the other 999 999.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.config import CorpusConfig
from pipeline.corpora.utterance import Utterance
from pipeline.ledger import Failure
from pipeline.scoring import language_code


def read(
    corpus: CorpusConfig, start: int = 0, stop: int | None = None
) -> Iterator[Utterance | Failure]:
    """Yield what the lines `start` to `stop` (without blank ones) of a manifest describe.

    Raises:
        FileNotFoundError: the manifest does not exist.
    """
    path = Path(corpus.path)
    if not path.is_file():
        raise FileNotFoundError(
            f"corpus {corpus.name!r}: there is no manifest {corpus.path} (looked for "
            f"{path.absolute()}). A relative path is taken from the folder the command runs in."
        )
    with path.open("rb") as lines:
        numbered = ((n, line) for n, line in enumerate(lines, start=1) if line.strip())
        for number, line in islice(numbered, start, stop):
            try:
                yield _utterance(corpus, path.parent, line)
            except ValueError as error:
                line_id = f"{corpus.name}-{corpus.split}-line-{number}"
                yield Failure(
                    id=line_id,
                    utterance_ids=(line_id,),
                    duration_seconds=0.0,
                    stage="plan",
                    error="bad_line",
                    message=f"{corpus.path}, line {number}: {error}",
                    attempts=1,
                )


def _utterance(corpus: CorpusConfig, folder: Path, line: bytes) -> Utterance:
    """Turn one line into an utterance, or raise a ValueError that says what is wrong with it."""
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError(f"expected a JSON object, got {fields!r}")
    recording = _text(fields, "audio_filepath")
    reference = _text(fields, "text")
    for name in ("audio_filepath", "id"):
        if fields.get(name) == "":
            raise ValueError(f"{name} is empty")
    offset = _seconds(fields, "offset") or 0.0
    duration = _seconds(fields, "duration")
    if duration == 0:
        raise ValueError("duration is 0; leave it out to have it measured")
    name = str(PurePosixPath(recording).with_suffix(""))
    if "offset" in fields:
        name += f"-{round(offset * 1000):07d}"
    return Utterance(
        id=_text(fields, "id", name),
        corpus=corpus.name,
        split=corpus.split,
        language=language_code(_text(fields, "lang", corpus.language)),
        licence=corpus.licence,
        speaker=_text(fields, "speaker", ""),
        recording=recording,
        path=str(folder / recording),
        start_seconds=offset,
        duration_seconds=duration,
        reference=reference,
    )


def _text(fields: dict[str, Any], name: str, default: str | None = None) -> str:
    """Return a field as text; numbers are accepted, because ids and speakers often are."""
    value = fields.get(name, default)
    if value is None:
        raise ValueError(f"{name} is missing")
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError(f"{name} must be text, got {value!r}")
    return str(value)


def _seconds(fields: dict[str, Any], name: str) -> float | None:
    """Return a field as seconds, or None where it is absent."""
    value = fields.get(name)
    if value is None:
        return None
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not 0 <= value < float("inf")
    ):
        raise ValueError(f"{name} must be seconds, 0 or more, got {value!r}")
    return float(value)
