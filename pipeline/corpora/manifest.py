"""A corpus as a JSONL manifest with NeMo's field names, one utterance a line; may be gzipped.

`audio_filepath` (relative to the manifest) and `text` are required; `id`, `duration`, `offset`,
`speaker`, `lang`, `licence` and `channel` are optional, and `columns` renames them. A line that
does not fit becomes a failure and not an exception: one bad line in a million must not cost the
other 999 999.
"""

import json
import posixpath
from collections.abc import Iterator

from pipeline.config import ColumnsConfig, CorpusConfig
from pipeline.corpora.fields import Fields, bad_entry
from pipeline.corpora.lines import check_length, read_lines
from pipeline.corpora.utterance import Entry

USUAL = ColumnsConfig(
    audio="audio_filepath",
    text="text",
    id="id",
    start="offset",
    duration="duration",
    speaker="speaker",
    language="lang",
    licence="licence",
    channel="channel",
)


def read(corpus: CorpusConfig, position: str = "") -> Iterator[tuple[str, Entry]]:
    """Yield what the lines of a manifest describe.

    Raises:
        FileNotFoundError: the manifest does not exist.
    """
    fields = Fields(corpus, USUAL, folder=posixpath.dirname(corpus.path))
    for place, number, line in read_lines(corpus, corpus.path, position):
        try:
            yield place, fields.utterance(json_object(line))
        except (ValueError, RecursionError) as error:
            message = f"{corpus.path}, line {number}: {error}"
            yield place, bad_entry(corpus, f"line-{number}", message)


def json_object(line: bytes) -> dict:
    """Parse a line that holds a JSON object.

    Raises:
        ValueError: it does not.
    """
    check_length(line)
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON object on one line ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {str(value)[:80]}")
    return value
