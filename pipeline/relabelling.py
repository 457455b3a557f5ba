"""Other labels for shards that exist: `labels@NAME` beside them, and no audio is moved.

A second run takes the shards of the first as its corpus (kind: webdataset) and writes a ledger.
Here its labels are put where the trainer finds them: one line for each clip, by shard. All that the
second teacher said goes in, also what its run's filter rejected: thresholds are the trainer's.
"""

import dataclasses
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.files import AnyPath, write_text
from pipeline.labels import labels, read_run
from pipeline.layout import Layout
from pipeline.ledger import LedgerRow
from pipeline.schema import Sample, SidecarLabel, read_index, sample_key, sidecar_path, to_json
from pipeline.shards import read_shard

_FIELDS = [field.name for field in dataclasses.fields(SidecarLabel) if field.name != "id"]


@dataclass(frozen=True, kw_only=True)
class Relabelled:
    """What became of the clips of a dataset."""

    labelled: int
    missing: int
    """Clips that the second teacher has no label for."""


def write_sidecar(output: AnyPath, second: AnyPath, name: str) -> Relabelled:
    """Write `labels@NAME` of a finished dataset from the ledger of a second run over its shards.

    Labels of that name that are there already are replaced when all new ones have been found.

    Raises:
        FileNotFoundError: one of the two is not finished.
        ValueError: the name will not do, or the second run was over other clips or packed them.
    """
    sidecar_path("", name, "")  # refuses a name that will not do
    index = read_index(output)
    heard = _Heard(second, [entry.name for entry in index.shards])
    texts: dict[str, str] = {}
    labelled = missing = 0
    for entry in index.shards:
        lines = []
        for sample, _ in read_shard(output / "shards" / entry.name):
            row = heard.take(entry.name, sample)
            if row is None:
                missing += 1
                continue
            lines.append(to_json(_label(sample, row, second)) + "\n")
        labelled += len(lines)
        texts[entry.name] = "".join(lines)
    if not labelled:
        raise ValueError(
            f"{second} has no label for any clip of {output}; was it run over these shards, with "
            "kind: webdataset and their own ids?"
        )
    for shard, text in texts.items():
        write_text(output / sidecar_path("", name, shard).as_posix(), text)
    return Relabelled(labelled=labelled, missing=missing)


class _Heard:
    """What the second teacher heard, by the clip that it was given.

    The place of a clip in its shard names it, and the second run notes that as the recording. Only
    where it notes something else, as for shards that were renamed, does the id have to do, which is
    unique in one split of one corpus and need not be in all.
    """

    def __init__(self, second: AnyPath, shards: Iterable[str]) -> None:
        self._second = second
        self._by_place: dict[str, LedgerRow] = {}
        self._by_id: defaultdict[str, list[LedgerRow]] = defaultdict(list)
        self._taken: set[str] = set()
        known = set(map(posixpath.basename, shards))
        for row in _rows(second):
            if posixpath.dirname(row.recording) in known:
                self._by_place[row.recording] = row
            else:
                self._by_id[row.utterances[0].id].append(row)

    def take(self, shard: str, sample: Sample) -> LedgerRow | None:
        """Return the row of a clip of a shard, or None.

        Raises:
            ValueError: only the id tells which row it is, and others have the same.
        """
        place = f"{posixpath.basename(shard)}/{sample_key(sample.id)}.flac"
        if place in self._by_place:
            return self._by_place[place]
        rows = self._by_id.get(sample.id, [])
        if not rows:
            return None
        if len(rows) > 1 or sample.id in self._taken:
            raise ValueError(
                f"several clips have the id {sample.id!r}, and {self._second} names the shards "
                "that it heard otherwise than they are named here: run it over these, with kind: "
                "webdataset"
            )
        self._taken.add(sample.id)
        return rows[0]


def _rows(second: AnyPath) -> Iterator[LedgerRow]:
    _, plan = read_run(Layout(second))
    for rows, _ in labels(plan, Layout(second)):
        for row in rows:
            if len(row.utterances) != 1:
                raise ValueError(
                    f"{second} packed clips together, so its labels belong to no single clip; run "
                    "it with clips.pack: no"
                )
            yield row


def _label(sample: Sample, row: LedgerRow, second: AnyPath) -> SidecarLabel:
    """Return a row as the label of a clip that is the same sound."""
    if abs(row.duration_seconds - sample.duration_seconds) > 0.01 or (
        row.reference and row.reference != sample.reference
    ):
        raise ValueError(
            f"clip {sample.id!r} of {second} has another length or reference than in the shards: "
            "it is of another corpus"
        )
    return SidecarLabel(id=sample.id, **{name: getattr(row, name) for name in _FIELDS})
