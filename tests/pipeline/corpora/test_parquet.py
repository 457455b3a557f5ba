import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import corpora
from pipeline.audio import AudioError, encode_flac, load_audio
from pipeline.config import ColumnsConfig
from pipeline.corpora import CorpusError, Utterance, parquet
from pipeline.ledger import Failure
from tests.pipeline.conftest import write_tone
from tests.pipeline.corpora.material import check_positions, configured, read_all


def flac(seconds: float) -> bytes:
    return encode_flac(np.full(round(seconds * 16_000), 0.1, np.float32))


def hub_rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Rows as the Hub stores them: a struct of bytes and path."""
    return [
        {
            "id": f"u{i}",
            "audio": {"bytes": flac(0.1 * (i + 1)), "path": f"u{i}.flac"},
            "text": f"text {i}",
            "duration_ms": 100 * (i + 1),
        }
        for i in range(first, first + count)
    ]


def write(path: Path, rows: list[dict[str, Any]], row_group_size: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)
    return path


def test_rows_are_listed_without_audio_and_read_in_any_order(tmp_path: Path):
    write(tmp_path / "train-00000.parquet", hub_rows(7))
    write(tmp_path / "train-00001.parquet", hub_rows(2, first=7))
    columns = ColumnsConfig(duration="duration_ms")
    config = configured("parquet", tmp_path / "train-*.parquet", columns=columns)
    found = read_all(config)
    assert [u.id for u in found] == [f"u{i}" for i in range(9)]
    assert [u.duration_seconds for u in found] == pytest.approx([0.1 * (i + 1) for i in range(9)])
    for i in (8, 0, 4, 2, 7, 6):
        assert load_audio(found[i].path).size == 1600 * (i + 1)
    check_positions(config)
    assert read_all(configured("parquet", tmp_path, columns=columns)) == found


def test_column_of_plain_bytes(tmp_path: Path):
    path = write(tmp_path / "a.parquet", [{"wav": flac(0.5), "say": "x"}])
    columns = ColumnsConfig(audio="wav", text="say")
    (utterance,) = read_all(configured("parquet", path, columns=columns))
    assert load_audio(utterance.path).size == 8_000
    assert (utterance.id, utterance.duration_seconds) == ("a-0-0", None)


@pytest.mark.parametrize("audio", ["clips/a.wav", {"bytes": None, "path": "clips/a.wav"}])
def test_column_of_paths(tmp_path: Path, audio: Any):
    (tmp_path / "clips").mkdir()
    write_tone(tmp_path / "clips/a.wav", 0.5)
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    kind = pa.string() if isinstance(audio, str) else struct
    table = pa.table({"audio": pa.array([audio], kind), "text": ["x"]})
    pq.write_table(table, tmp_path / "a.parquet")
    (utterance,) = read_all(configured("parquet", tmp_path / "a.parquet"))
    assert utterance.id == "clips/a"
    assert load_audio(utterance.path).size == 8_000


def test_audio_alone_is_enough_without_references(tmp_path: Path):
    path = write(tmp_path / "a.parquet", [{"audio": flac(0.1)} for _ in range(4)])
    config = configured("parquet", path, references=False)
    assert [u.id for u in read_all(config)] == ["a-0-0", "a-0-1", "a-0-2", "a-1-0"]
    check_positions(config)


def test_fields_of_structs_are_columns_with_a_dot(tmp_path: Path):
    path = write(tmp_path / "a.parquet", [{"audio": flac(0.1), "meta": {"words": "x", "who": 7}}])
    columns = ColumnsConfig(text="meta.words", speaker="meta.who")
    (utterance,) = read_all(configured("parquet", path, columns=columns))
    assert (utterance.reference, utterance.speaker) == ("x", "7")


def test_missing_column_is_named_with_those_that_are_there(tmp_path: Path):
    path = write(tmp_path / "a.parquet", hub_rows(1))
    config = configured("parquet", path, columns=ColumnsConfig(text="sentence"))
    with pytest.raises(ValueError, match=r"no column 'sentence'; the columns are audio, .*text"):
        list(corpora.read(config))


def test_decoded_audio_in_a_column_is_refused(tmp_path: Path):
    path = write(tmp_path / "a.parquet", [{"audio": [0.1, 0.2], "text": "x"}])
    with pytest.raises(ValueError, match="'audio' of .* is list"):
        list(corpora.read(configured("parquet", path)))


def test_empty_and_damaged_cells_fail_alone(tmp_path: Path):
    rows = hub_rows(3)
    rows[0]["audio"]["bytes"], rows[1]["audio"]["bytes"] = None, b"no audio"
    found = read_all(configured("parquet", write(tmp_path / "a.parquet", rows)))
    for utterance, message in zip(
        found, ["no audio in column audio.bytes", "not readable"], strict=False
    ):
        with pytest.raises(AudioError, match=message):
            load_audio(utterance.path)
    assert load_audio(found[2].path).size == 4800


def test_damaged_file_fails_and_the_next_is_read(tmp_path: Path):
    data = write(tmp_path / "a.parquet", hub_rows(3)).read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[:-100])
    write(tmp_path / "b.parquet", hub_rows(1))
    bad, good = check_positions(configured("parquet", tmp_path))
    assert isinstance(bad, Failure)
    assert isinstance(good, Utterance)
    assert bad.error == "damaged_file"


def test_damaged_page_costs_its_row_group_and_the_others_are_read(tmp_path: Path):
    path = write(tmp_path / "a.parquet", hub_rows(9))
    write(tmp_path / "b.parquet", hub_rows(1, first=9))
    with pq.ParquetFile(path) as file:
        chunks = [file.metadata.row_group(1).column(i) for i in range(file.metadata.num_columns)]
    (text,) = [chunk for chunk in chunks if chunk.path_in_schema == "text"]
    data = bytearray(path.read_bytes())
    data[text.dictionary_page_offset] ^= 0xFF
    path.write_bytes(data)
    entries = check_positions(configured("parquet", tmp_path))
    good = [entry.id for entry in entries if isinstance(entry, Utterance)]
    assert good == [f"u{i}" for i in (0, 1, 2, 6, 7, 8, 9)]
    (bad,) = [entry for entry in entries if isinstance(entry, Failure)]
    assert (bad.id, bad.error) == ("mine-train-a-1-0", "damaged_file")
    assert f"{path}: 3 rows from row 0 of row group 1 on cannot be read" in bad.message


def test_rows_before_a_damaged_page_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parquet, "_ROWS", 2)
    path = tmp_path / "a.parquet"
    table = pa.Table.from_pylist(hub_rows(8))
    pq.write_table(table, path, row_group_size=6, use_dictionary=False, compression="none")
    path.write_bytes(path.read_bytes().replace(b"text 4", b"tex\xff 4"))
    *first, bad, seventh, eighth = check_positions(configured("parquet", path))
    good = [entry.id for entry in (*first, seventh, eighth) if isinstance(entry, Utterance)]
    assert good == ["u0", "u1", "u2", "u3", "u6", "u7"]
    assert isinstance(bad, Failure)
    assert "2 rows from row 4 of row group 0 on cannot be read ('utf-8' codec" in bad.message


def test_a_disk_that_fails_is_no_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a.parquet", hub_rows(3))

    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(parquet, "_values", fails)
    with pytest.raises(CorpusError, match=r"a\.parquet cannot be read: .*Input/output error"):
        list(corpora.read(configured("parquet", path)))


def test_row_without_text_is_a_failure(tmp_path: Path):
    rows = hub_rows(2)
    rows[0]["text"] = None
    bad, good = check_positions(configured("parquet", write(tmp_path / "a.parquet", rows)))
    assert isinstance(bad, Failure)
    assert isinstance(good, Utterance)
    assert "row 0 of row group 0: text is missing" in bad.message
