"""A corpus as a Kaldi data folder: `wav.scp`, and where they are there `segments` and `utt2spk`.

`text` is needed unless the corpus has `references: false`. A `wav.scp` with commands is refused:
reading a corpus must not run programs that its files name.
"""

import functools
from collections.abc import Iterator

from pipeline import storage
from pipeline.config import CorpusConfig
from pipeline.corpora.fields import bad_entry, beginning, span
from pipeline.corpora.lines import read_lines
from pipeline.corpora.utterance import Entry, Utterance
from pipeline.scoring import language_code


def read(corpus: CorpusConfig, position: str = "") -> Iterator[tuple[str, Entry]]:
    """Yield the segments of a data folder, or its recordings where it has no segments.

    Raises:
        FileNotFoundError: there is no folder, no `wav.scp`, or no `text` although the corpus has
            references.
        ValueError: `wav.scp` holds a command.
    """
    listing = "segments" if _has(corpus, "segments") else "wav.scp"
    recordings = _recordings(corpus)
    texts = _pairs(corpus, "text") if corpus.references else {}
    speakers = _pairs(corpus, "utt2spk") if _has(corpus, "utt2spk") else {}
    for place, number, line in read_lines(corpus, storage.join(corpus.path, listing), position):
        try:
            yield place, _utterance(corpus, listing, line, recordings, texts, speakers)
        except ValueError as error:
            message = f"{corpus.path}/{listing}, line {number}: {error}"
            yield place, bad_entry(corpus, f"line-{number}", message)


def _utterance(
    corpus: CorpusConfig,
    listing: str,
    line: bytes,
    recordings: dict[bytes, bytes],
    texts: dict[bytes, bytes],
    speakers: dict[bytes, bytes],
) -> Utterance:
    """Join what the files say of one utterance."""
    key, *rest = line.split()
    start, duration, recording = 0.0, None, key
    if listing == "segments":
        if len(rest) < 3:
            raise ValueError("expected: utterance recording start end")
        recording = rest[0]
        start, end = beginning(rest[1]), float(rest[2])
        duration = None if end == -1 else span(start, end)  # Kaldi's mark for the recording's end
    if recording not in recordings:
        raise ValueError(f"wav.scp has no recording {recording.decode('utf-8', 'replace')!r}")
    if corpus.references and key not in texts:
        raise ValueError(f"text has no line for {key.decode('utf-8', 'replace')!r}")
    name = recordings[recording].decode()
    return Utterance(
        id=key.decode(),
        corpus=corpus.name,
        split=corpus.split,
        language=language_code(corpus.language),
        licence=corpus.licence,
        speaker=speakers.get(key, b"").decode(),
        recording=recording.decode(),
        path=storage.join(corpus.audio or corpus.path, name),
        start_seconds=start,
        duration_seconds=duration,
        reference=texts[key].decode() if corpus.references else None,
        channel=corpus.channel,
    )


def _recordings(corpus: CorpusConfig) -> dict[bytes, bytes]:
    """Read `wav.scp`, and refuse it if it is a list of programs to run."""
    found = _pairs(corpus, "wav.scp")
    for key, value in found.items():
        if value.endswith(b"|") or value.startswith(b"|"):
            raise ValueError(
                f"corpus {corpus.name!r}: in {corpus.path}/wav.scp recording "
                f"{key.decode('utf-8', 'replace')!r} is a command "
                f"({value.decode('utf-8', 'replace')[:80]!r}). Commands are not run, because a "
                "data file must not start programs. Write the audio to files once (Kaldi's "
                "wav-copy, or the command itself with a file at its end) and name those in wav.scp"
            )
    return found


def _has(corpus: CorpusConfig, name: str) -> bool:
    try:
        return name in storage.list_folder(corpus.path).files
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"corpus {corpus.name!r}: there is no folder {corpus.path}. "
            "A relative path is taken from the folder the command runs in."
        ) from error


def _pairs(corpus: CorpusConfig, name: str) -> dict[bytes, bytes]:
    """Read a file of `key value`; kept from one block to the next while the file is the same."""
    path = storage.join(corpus.path, name)
    if not _has(corpus, name):
        advice = ". If the corpus has no references, set references: false"
        raise FileNotFoundError(
            f"corpus {corpus.name!r}: {corpus.path} has no file {name}"
            + (advice if name == "text" else "")
        )
    return _read_pairs(corpus, path, storage.file_version(path))


@functools.lru_cache(maxsize=6)
def _read_pairs(corpus: CorpusConfig, path: str, version: object) -> dict[bytes, bytes]:
    pairs = {}
    for _, _, line in read_lines(corpus, path):
        key, _, value = line.strip().replace(b"\t", b" ").partition(b" ")
        pairs[key] = value.strip()
    return pairs
