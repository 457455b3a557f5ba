"""A corpus as NIST STM files: TED-LIUM, and telephone calls with a speaker on each channel.

A line is `recording channel speaker start end <labels> text`. The recordings are looked for by name
in the folder `audio`, whatever their extension. What is marked as not to be scored is rejected, so
that it is counted and never labelled.
"""

import posixpath
from collections.abc import Iterator

from pipeline import storage
from pipeline.config import CorpusConfig
from pipeline.corpora.fields import bad_entry, beginning, span
from pipeline.corpora.folder import AUDIO_EXTENSIONS
from pipeline.corpora.lines import check_length, read_lines
from pipeline.corpora.utterance import RULE_STAGE, Entry, Utterance
from pipeline.ledger import Failure
from pipeline.scoring import language_code

IGNORED = "ignore_time_segment_in_scoring"
_CHANNELS = {"1": 0, "2": 1, "A": 0, "B": 1, "a": 0, "b": 1}


def read(corpus: CorpusConfig, position: str = "") -> Iterator[tuple[str, Entry]]:
    """Yield the segments of an STM file, or of all in a folder in the order of their names.

    Raises:
        FileNotFoundError: there is no STM file, or no folder of audio.
    """
    number, _, within = position.partition("/")
    folder, names = _files(corpus)
    audio_folder = corpus.audio or folder
    audio = {
        posixpath.splitext(name)[0]: name
        for name in storage.list_folder(audio_folder or ".").files
        if posixpath.splitext(name)[1].lower() in AUDIO_EXTENSIONS
    }
    for index in range(int(number or 0), len(names)):
        path = storage.join(folder, names[index])
        for place, line_number, line in read_lines(corpus, path, within):
            if line.startswith(b";;"):
                continue
            where = f"{path}, line {line_number}"
            try:
                entry = _entry(corpus, audio_folder, audio, line, where)
            except ValueError as error:
                entry = bad_entry(corpus, f"{names[index]}-line-{line_number}", f"{where}: {error}")
            yield f"{index}/{place}", entry
        within = ""


def _files(corpus: CorpusConfig) -> tuple[str, list[str]]:
    """Return the folder of the STM files and their names."""
    if corpus.path.endswith((".stm", ".stm.gz")):
        folder, _, name = corpus.path.rpartition("/")
        return folder, [name]
    try:
        files = storage.list_folder(corpus.path).files
    except (FileNotFoundError, NotADirectoryError):
        files = ()
    names = [name for name in files if name.endswith((".stm", ".stm.gz"))]
    if not names:
        raise FileNotFoundError(
            f"corpus {corpus.name!r}: there is no STM file in {corpus.path}. "
            "A relative path is taken from the folder the command runs in."
        )
    return corpus.path, names


def _entry(
    corpus: CorpusConfig, folder: str, audio: dict[str, str], line: bytes, where: str
) -> Entry:
    """Turn one line into an utterance."""
    check_length(line)
    fields = line.decode().split(None, 5)
    if len(fields) < 5:
        raise ValueError("expected: recording channel speaker start end <labels> text")
    recording, label, speaker, begin, end = fields[:5]
    text = fields[5].strip() if len(fields) > 5 else ""
    if text.startswith("<") and ">" in text:
        text = text.partition(">")[2].strip()
    start = beginning(begin)
    duration = span(start, float(end))
    identity = f"{recording}-{label}-{round(start * 1000):07d}-{round(float(end) * 1000):07d}"
    if text.lower() == IGNORED:
        return Failure(
            id=identity,
            utterance_ids=(identity,),
            duration_seconds=duration,
            stage=RULE_STAGE,
            error="ignored_segment",
            message=f"{where}: marked as {IGNORED}",
            attempts=1,
        )
    if label not in _CHANNELS:
        raise ValueError(f"channel {label!r}; expected one of {', '.join(_CHANNELS)}")
    name = audio.get(recording)
    if name is None:
        raise ValueError(f"there is no recording {recording!r} in {folder or 'this folder'}")
    return Utterance(
        id=identity,
        corpus=corpus.name,
        split=corpus.split,
        language=language_code(corpus.language),
        licence=corpus.licence,
        speaker=speaker,
        recording=recording,
        path=storage.join(folder, name),
        start_seconds=start,
        duration_seconds=duration,
        reference=text if corpus.references else None,
        channel=_CHANNELS[label],
    )
