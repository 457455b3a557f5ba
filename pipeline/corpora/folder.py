"""A corpus as a folder of recordings, in the layouts that people have.

- LibriSpeech: a `*.trans.txt` in each folder, one line an utterance; ids tell the speaker.
- LJSpeech: `metadata.csv` with `id|text|...` beside a folder `wavs`.
- Text beside: `a.txt` for `a.wav`.
- No text at all: with `references: false`.

Files named `._*`, which macOS leaves beside others when it copies them, are no recordings.

Folders are walked in the order of their names, so a position is a path and reading from it lists
only the folders on the way there and after it.
"""

import functools
import logging
import os
import posixpath
import re
from collections.abc import Iterator, Sequence

from pipeline import storage
from pipeline.config import CorpusConfig
from pipeline.corpora.fields import bad_entry, printable
from pipeline.corpora.lines import read_lines
from pipeline.corpora.utterance import Entry, Utterance
from pipeline.scoring import language_code

logger = logging.getLogger(__name__)

AUDIO_EXTENSIONS = frozenset(
    [".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".sph", ".aif", ".aiff", ".au", ".caf"]
    + [".w64", ".rf64", ".m4a", ".m4b", ".mp4", ".aac", ".mov", ".mkv", ".webm", ".wma", ".avi"]
)
_TRANSCRIPTS = ".trans.txt"
_LIBRISPEECH_ID = re.compile(r"(\d+)-\d+-\d+")


def read(corpus: CorpusConfig, position: str = "") -> Iterator[tuple[str, Entry]]:
    """Yield the recordings of a folder.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: it may not be read.
    """
    try:
        top = storage.list_folder(corpus.path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"corpus {corpus.name!r}: there is no folder {corpus.path}. "
            "A relative path is taken from the folder the command runs in."
        ) from error
    if "metadata.csv" in top.files and "wavs" in top.folders and corpus.references:
        yield from _ljspeech(corpus, position)
    else:
        yield from _walk(corpus, "", position.split("/") if position else [], ())


def _ljspeech(corpus: CorpusConfig, position: str) -> Iterator[tuple[str, Entry]]:
    """Read `metadata.csv`: id, text as written, and more that is not used."""
    wavs = storage.list_folder(storage.join(corpus.path, "wavs"))
    names = {posixpath.splitext(name)[0]: name for name in wavs.files}
    listing = storage.join(corpus.path, "metadata.csv")
    for place, number, line in read_lines(corpus, listing, position):
        try:
            identity, *texts = line.decode().rstrip("\r\n").split("|")
            if not texts:
                raise ValueError("expected id|text")
        except ValueError as error:
            message = f"{listing}, line {number}: {error}"
            yield place, bad_entry(corpus, f"line-{number}", message)
            continue
        name = f"wavs/{names.get(identity, identity + '.wav')}"
        yield place, _utterance(corpus, identity, name, texts[0], speaker="")


def _walk(
    corpus: CorpusConfig, relative: str, after: Sequence[str], above: tuple[str, ...]
) -> Iterator[tuple[str, Entry]]:
    """Yield the recordings of a folder, then those of its folders, from a path on."""
    path = storage.join(corpus.path, relative)
    if not storage.is_url(path):
        real = os.path.realpath(path)
        if real in above:
            _warn_of_loop(path, real)
            return
        above = (*above, real)
    try:
        listing = storage.list_folder(path)
    except OSError as error:
        if not relative:
            raise
        message = f"{path}: the folder cannot be listed ({error})"
        # The slash: what is in it, not a recording of that name.
        place = f"{printable(relative)}/"
        yield place, bad_entry(corpus, "", message, "unreadable_folder", relative)
        return
    if len(after) <= 1:
        yield from _recordings(corpus, relative, listing, after[0] if after else "")
    head, rest = (after[0], after[1:]) if len(after) > 1 else ("", [])
    for name in sorted(listing.folders, key=printable):
        if printable(name) >= head:
            below = f"{relative}/{name}" if relative else name
            yield from _walk(corpus, below, rest if printable(name) == head else [], above)


def _recordings(
    corpus: CorpusConfig, relative: str, listing: storage.Listing, after: str
) -> Iterator[tuple[str, Entry]]:
    """Yield the recordings that lie directly in a folder, from a name on."""
    folder = f"{relative}/" if relative else ""
    audio = [
        name
        for name in listing.files
        if posixpath.splitext(name)[1].lower() in AUDIO_EXTENSIONS and not is_resource_fork(name)
    ]
    texts, problems = _transcripts(corpus, relative, listing)
    beside = set(listing.files)
    spoken = {posixpath.splitext(name)[0] for name in audio}
    entries = sorted([*audio, *problems, *(texts.keys() - spoken)], key=printable)
    for name in entries:
        if printable(name) < after:
            continue
        place = printable(folder + name)
        identity, extension = posixpath.splitext(folder + name)
        problem = error = ""
        text = None
        if name in problems:
            identity, problem, error = folder + name, problems[name], "bad_text"
        elif extension.lower() not in AUDIO_EXTENSIONS:
            identity, error = folder + name, "no_audio"
            problem = f"{folder}*{_TRANSCRIPTS} has a line for {name}, but there is no audio"
        elif place != folder + name:
            problem, error = f"the name {place!r} is not UTF-8; rename it", "bad_name"
        elif corpus.references:
            stem = posixpath.splitext(name)[0]
            try:
                text = texts[stem] if stem in texts else _beside(corpus, folder, stem, beside)
            except (OSError, ValueError) as reason:
                problem, error = f"{identity}.txt: {reason}", "bad_text"
            else:
                if text is None:
                    error = "no_text"
                    problem = (
                        f"{folder}{name} has no transcript: neither {stem}.txt nor a line in a "
                        f"*{_TRANSCRIPTS}. If the corpus has none at all, set references: false"
                    )
        if error:
            yield place, bad_entry(corpus, "", problem, error, identity)
            continue
        match = _LIBRISPEECH_ID.fullmatch(posixpath.basename(identity))
        identity = match[0] if match and texts else identity
        speaker = match[1] if match and texts else ""
        yield place, _utterance(corpus, identity, folder + name, text, speaker)


def _transcripts(
    corpus: CorpusConfig, relative: str, listing: storage.Listing
) -> tuple[dict[str, str], dict[str, str]]:
    """Read the `*.trans.txt` of a folder: texts by id, and what is wrong with some lines."""
    texts: dict[str, str] = {}
    problems: dict[str, str] = {}
    if not corpus.references:
        return texts, problems
    for name in listing.files:
        if not name.endswith(_TRANSCRIPTS) or is_resource_fork(name):
            continue
        path = storage.join(storage.join(corpus.path, relative), name)
        for _, number, line in read_lines(corpus, path):
            identity, _, text = line.strip().partition(b" ")
            try:
                texts[identity.decode()] = text.decode()
            except ValueError as error:
                problems[f"{name}-line-{number}"] = f"{path}, line {number}: {error}"
    return texts, problems


def _beside(corpus: CorpusConfig, folder: str, stem: str, files: set[str]) -> str | None:
    """Return the text that lies beside a recording, or None."""
    if f"{stem}.txt" not in files:
        return None
    data = storage.read_bytes(storage.join(corpus.path, f"{folder}{stem}.txt"))
    return " ".join(data.decode("utf-8-sig").split())


def _utterance(
    corpus: CorpusConfig, identity: str, name: str, text: str | None, speaker: str
) -> Utterance:
    return Utterance(
        id=identity,
        corpus=corpus.name,
        split=corpus.split,
        language=language_code(corpus.language),
        licence=corpus.licence,
        speaker=speaker,
        recording=name,
        path=storage.join(corpus.path, name),
        start_seconds=0.0,
        duration_seconds=None,
        reference=text,
        channel=corpus.channel,
    )


def is_resource_fork(name: str) -> bool:
    """Tell whether a file is what macOS leaves beside `name` where it cannot store attributes."""
    return name.startswith("._")


@functools.lru_cache(maxsize=1024)
def _warn_of_loop(path: str, target: str) -> None:
    """Warn once of a loop, and not for each block."""
    logger.warning("%s leads back to %s: the loop is not followed", path, target)
