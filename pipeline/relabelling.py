"""Other labels for shards that exist: `labels@NAME` beside them, and no audio is moved.

A second run takes the shards of the first as its corpus (kind: webdataset) and writes a ledger.
Here its labels are put where the trainer finds them: one line for each clip, by shard. All that the
second teacher said goes in, also what its run's filter rejected: thresholds are the trainer's.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.files import AnyPath, write_text
from pipeline.labels import labels, read_run
from pipeline.layout import Layout
from pipeline.ledger import LedgerRow
from pipeline.schema import Sample, SidecarLabel, read_index, sidecar_path, to_json
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

    Raises:
        FileNotFoundError: one of the two is not finished.
        ValueError: the name will not do, or the second run was over other clips or packed them.
    """
    sidecar_path("", name, "")  # refuses a name that will not do
    index = read_index(output)
    heard = {row.utterances[0].id: row for row in _rows(second)}
    labelled = missing = 0
    for entry in index.shards:
        lines = []
        for sample, _ in read_shard(output / "shards" / entry.name):
            row = heard.get(sample.id)
            if row is None:
                missing += 1
                continue
            lines.append(to_json(_label(sample, row, second)) + "\n")
        labelled += len(lines)
        path = output / sidecar_path("", name, entry.name).as_posix()
        write_text(path, "".join(lines))
    if not labelled:
        raise ValueError(
            f"{second} has no label for any clip of {output}; was it run over these shards, with "
            "kind: webdataset and their own ids?"
        )
    return Relabelled(labelled=labelled, missing=missing)


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
