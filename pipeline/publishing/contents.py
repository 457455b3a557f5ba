"""What the shards of a finished dataset hold, read from the shards themselves.

Every byte is compared with the index before anything is published, and what is counted on the way
(hours by language and licence) is true of exactly these bytes.
"""

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.files import AnyPath
from pipeline.schema import Index, Sample, ShardEntry
from pipeline.shards import file_sha256, read_shard
from pipeline.storage import without_credentials
from pipeline.upload import PublishError

_LOCAL = re.compile(r"(?i)[/~\\]|file:|\.\.?[/\\]|[a-z]:[/\\](?!/)")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Portion:
    """What of one split is of one language and one licence."""

    language: str
    licence: str
    clips: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class CheckedShard:
    """A shard that is what the index says."""

    entry: ShardEntry
    path: AnyPath
    portions: tuple[Portion, ...]
    local_path: str = ""
    """One that a sample names, of its recording or its teacher."""

    @property
    def licences(self) -> set[str]:
        """All that its clips have."""
        return {portion.licence for portion in self.portions}


def check_shards(output: AnyPath, index: Index) -> tuple[CheckedShard, ...]:
    """Read every shard that the index lists and that has a sample.

    Raises:
        PublishError: a shard is missing, or not what the index says.
        ValueError: a sample has a signed link in it, or no shard has a sample.
    """
    checked = tuple(_check(output / "shards" / e.name, e) for e in index.shards if e.num_samples)
    if not checked:
        raise ValueError(
            f"{output} has no clip to publish: the filter kept nothing; see its report.html"
        )
    warn_of_local(shard.local_path for shard in checked)
    return checked


def warn_of_local(names: Iterable[str]) -> None:
    """Say that paths of this machine go up, and name the first; an empty name is none."""
    named = next(filter(None, names), "")
    if named:
        logger.warning(
            "samples or labels name paths of this machine, such as %s, and go up as they are", named
        )


def local_name(path: AnyPath, names: Iterable[str]) -> str:
    """Return the first of the names in a file that is a path of this machine, or "".

    Raises:
        ValueError: one is a link with the credential that signs it.
    """
    local = ""
    for name in names:
        shown = without_credentials(name)
        if shown != name:
            raise ValueError(
                f"{path} names {shown} by a signed link, and who reads it could use the signature "
                "or the token. Run the pipeline again, which leaves both out of what it writes, or "
                "name the file otherwise"
            )
        local = local or (name if _LOCAL.match(name) else "")
    return local


def _check(path: AnyPath, entry: ShardEntry) -> CheckedShard:
    if not path.is_file():
        raise PublishError(
            f"{path} is missing, the index lists it: run `whisper-pipeline run --verify` again"
        )
    size_bytes = path.stat().st_size
    if size_bytes != entry.size_bytes or file_sha256(path) != entry.sha256:
        raise PublishError(
            f"{path} is not the file that the index lists: it was changed or damaged. Run "
            "`whisper-pipeline run --verify`, which makes it again"
        )
    clips: Counter[tuple[str, str]] = Counter()
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    named = ""
    for sample, _ in read_shard(path):
        local = local_name(path, _names(sample))
        named = named or local
        clips[sample.language, sample.licence] += 1
        seconds[sample.language, sample.licence] += sample.duration_seconds
    return CheckedShard(
        entry=entry,
        path=path,
        portions=tuple(
            Portion(language=key[0], licence=key[1], clips=clips[key], seconds=seconds[key])
            for key in sorted(clips)
        ),
        local_path=named,
    )


def _names(sample: Sample) -> Iterator[str]:
    """Yield all by which a sample names files, or what may be made of such a name."""
    yield from (sample.teacher, sample.recording, sample.id)
    for utterance in sample.utterances:
        yield from (utterance.recording, utterance.id)


def add_up(shards: tuple[CheckedShard, ...]) -> dict[tuple[str, str], tuple[Portion, ...]]:
    """Add up the portions of each split: by corpus and split, then by language and licence."""
    sums: defaultdict[tuple[str, str], dict[tuple[str, str], Portion]] = defaultdict(dict)
    for shard in shards:
        found = sums[shard.entry.corpus, shard.entry.split]
        for portion in shard.portions:
            key = portion.language, portion.licence
            before = found.get(key)
            found[key] = Portion(
                language=portion.language,
                licence=portion.licence,
                clips=portion.clips + (before.clips if before else 0),
                seconds=round(portion.seconds + (before.seconds if before else 0.0), 4),
            )
    return {
        source: tuple(portions[key] for key in sorted(portions))
        for source, portions in sorted(sums.items())
    }
