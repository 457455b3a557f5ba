import contextlib
import dataclasses
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.ledger import (
    LEDGER_SCHEMA,
    Failure,
    LedgerRow,
    check_ledger,
    read_failures,
    read_ledger,
    read_ledger_metadata,
    write_failures,
    write_ledger,
)
from pipeline.schema import Sample
from pipeline.shards import read_shard

GOLDEN = Path(__file__).parents[1] / "golden" / "shard.tar"

FAILURE = Failure(
    id="c-1",
    utterance_ids=("u-1", "u-2"),
    duration_seconds=2.5,
    stage="read",
    error="AudioError",
    message="a.wav: naïve\nsecond line\u2028third",
    attempts=1,
)


@pytest.fixture(scope="module")
def rows() -> list[LedgerRow]:
    return [sample for sample, _ in read_shard(GOLDEN)]


def test_the_ledger_has_every_field_of_a_sample_in_its_order():
    assert LEDGER_SCHEMA.names == [field.name for field in dataclasses.fields(Sample)]


def test_only_what_depends_on_a_reference_or_on_the_clip_before_may_be_null():
    nullable = {field.name for field in LEDGER_SCHEMA if field.nullable}
    scores = {"wer", "cer", "substitutions", "deletions", "insertions", "orthographic_wer"}
    assert nullable == scores | {"previous_pseudo_label"}


def test_rows_and_metadata_survive_the_disk(tmp_path, rows):
    rows = [replace(rows[0], segments=(), tokens=(), utterances=()), *rows]
    write_ledger(tmp_path / "b.parquet", rows, {"fingerprint": "f", "note": "naïve"})
    assert read_ledger(tmp_path / "b.parquet") == (rows, {"fingerprint": "f", "note": "naïve"})


def test_a_flipped_bit_is_found_or_changes_nothing_of_what_is_read(tmp_path, rows):
    path = tmp_path / "b.parquet"
    write_ledger(path, [replace(row, cer=0) for row in rows], {"fingerprint": "f"})
    check_ledger(path)
    (written, _), content = read_ledger(path), path.read_bytes()
    for place in range(0, len(content), 17):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):
            check_ledger(path)
            found, metadata = read_ledger(path)  # the checksum's own name may be damaged
            assert (found, metadata["fingerprint"]) == (written, "f"), place


def test_a_part_of_an_older_release_is_checked_by_its_pages(tmp_path, rows):
    path = tmp_path / "b.parquet"
    write_ledger(path, rows, {"fingerprint": "f"})
    table = pq.read_table(path).replace_schema_metadata({"fingerprint": "f"})
    pq.write_table(table, path, write_page_checksum=True)
    check_ledger(path)


def test_a_block_in_which_everything_failed_has_a_part_without_rows(tmp_path):
    write_ledger(tmp_path / "b.parquet", [], {"fingerprint": "f"})
    assert read_ledger(tmp_path / "b.parquet") == ([], {"fingerprint": "f"})


def test_the_same_rows_give_the_same_bytes(tmp_path, rows):
    write_ledger(tmp_path / "a.parquet", rows, {"x": "1", "y": "2"})
    write_ledger(tmp_path / "b.parquet", rows, {"y": "2", "x": "1"})
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_plain_parquet_tools_can_ask_it_questions(tmp_path, rows):
    write_ledger(tmp_path / "b.parquet", rows, {})
    table = pq.read_table(tmp_path / "b.parquet", filters=[("wer", ">", 0.1)])
    assert set(table["id"].to_pylist()) == {row.id for row in rows if (row.wer or 0) > 0.1}


def test_metadata_is_read_without_the_rows(tmp_path, rows):
    write_ledger(tmp_path / "b.parquet", rows, {"fingerprint": "f"})
    assert read_ledger_metadata(tmp_path / "b.parquet") == {"fingerprint": "f"}
    assert read_ledger_metadata(tmp_path / "none.parquet") is None


@pytest.mark.parametrize("read", [read_ledger, read_ledger_metadata])
def test_a_damaged_part_is_refused_by_its_path(tmp_path, rows, read):
    write_ledger(tmp_path / "b.parquet", rows, {})
    content = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"b\.parquet is damaged"):
        read(tmp_path / "b.parquet")


def test_a_part_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_ledger(tmp_path / "b.parquet")


def test_a_part_of_an_older_release_lacks_what_came_later_and_is_read(tmp_path, rows):
    rows = [replace(row, normalizer="", orthographic_wer=None) for row in rows]
    write_ledger(tmp_path / "b.parquet", rows, {})
    old = pq.read_table(tmp_path / "b.parquet").drop_columns(
        ["token_logprobs", "normalizer", "orthographic_wer"]
    )
    pq.write_table(old, tmp_path / "b.parquet")
    assert read_ledger(tmp_path / "b.parquet")[0] == rows


def test_a_row_that_breaks_the_schema_leaves_no_file(tmp_path, rows):
    with pytest.raises(ValueError, match="null"):
        write_ledger(tmp_path / "b.parquet", [replace(rows[0], speaker=None)], {})
    assert list(tmp_path.iterdir()) == []


def test_failures_survive_the_disk_one_a_line(tmp_path):
    failures = [FAILURE, replace(FAILURE, id="c-2", utterance_ids=(), message="")]
    write_failures(tmp_path / "b.jsonl", failures)
    assert read_failures(tmp_path / "b.jsonl") == failures
    assert (tmp_path / "b.jsonl").read_bytes().count(b"\n") == 2


def test_a_block_without_failures_has_an_empty_file(tmp_path):
    write_failures(tmp_path / "b.jsonl", [])
    assert (tmp_path / "b.jsonl").read_bytes() == b""
    assert read_failures(tmp_path / "b.jsonl") == []
