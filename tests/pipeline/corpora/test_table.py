from pathlib import Path

import pytest

from pipeline import corpora
from pipeline.audio import load_audio
from pipeline.config import ColumnsConfig
from pipeline.corpora import Utterance
from pipeline.ledger import Failure
from tests.pipeline.conftest import write_tone
from tests.pipeline.corpora.material import check_positions, configured, read_all

HEADER = "client_id\tpath\tsentence_id\tsentence\tup_votes\tlocale\tsegment\n"


def common_voice(root: Path) -> Path:
    """`train.tsv` beside `clips/`, as Common Voice is unpacked."""
    (root / "clips").mkdir()
    rows = [HEADER]
    for number, text in enumerate(['He said "no', "Größe", "tab less"]):
        name = f"common_voice_en_{number}.mp3"
        write_tone(root / "clips" / name, 0.3, sample_rate=32_000)
        rows.append(f"c{number}\t{name}\tabc\t{text}\t2\ten\t\n")
    (root / "train.tsv").write_text("".join(rows), encoding="utf-8")
    return root / "train.tsv"


def test_common_voice_layout(tmp_path: Path):
    path = common_voice(tmp_path)
    config = configured("table", path, audio=str(tmp_path / "clips"))
    found = read_all(config)
    assert [(u.id, u.speaker, u.reference) for u in found] == [
        ("common_voice_en_0", "c0", 'He said "no'),
        ("common_voice_en_1", "c1", "Größe"),
        ("common_voice_en_2", "c2", "tab less"),
    ]
    assert all(load_audio(u.path).size > 4000 for u in found)
    check_positions(config)


def test_csv_with_quoted_separators_and_line_breaks(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text('path,sentence,duration\na.wav,"one, ""two""\nthree",1.5\nb.wav,four,\n')
    first, second = check_positions(configured("table", path))
    assert isinstance(first, Utterance)
    assert isinstance(second, Utterance)
    assert (first.reference, first.duration_seconds) == ('one, "two"\nthree', 1.5)
    assert (second.id, second.duration_seconds) == ("b", None)


@pytest.mark.parametrize("separator", [";", "|"])
def test_other_separators_are_told_from_the_header(tmp_path: Path, separator: str):
    path = tmp_path / "a.csv"
    path.write_text(separator.join(["path", "sentence"]) + "\n" + f"a.wav{separator}x, y\n")
    assert read_all(configured("table", path))[0].reference == "x, y"


def test_missing_column_is_named_with_those_that_are_there(tmp_path: Path):
    path = common_voice(tmp_path)
    config = configured("table", path, columns=ColumnsConfig(text="words"))
    with pytest.raises(
        ValueError, match=r"no column 'words'; the columns are .*path, segment, .*columns\.text"
    ):
        list(corpora.read(config))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.wav\n", "has 1 fields, but the header names 3"),
        ("a.wav\tx\t1\t2\n", "has 4 fields"),
        ("\tx\t1\n", "path is missing"),
        ("a.wav\tx\tlong\n", "duration must be seconds"),
        ("a.wav\tx\tnan\n", "duration must be seconds"),
        ("a.wav\tx\t0\n", "duration is 0"),
    ],
)
def test_bad_row_is_a_failure_and_the_next_is_read(tmp_path: Path, row: str, message: str):
    path = tmp_path / "a.tsv"
    path.write_text(f"path\tsentence\tduration\n{row}b.wav\t\t2\n")
    bad, good = check_positions(configured("table", path))
    assert isinstance(bad, Failure)
    assert isinstance(good, Utterance)
    assert bad.message.startswith(f"{path}, line 2: ")
    assert message in bad.message
    assert good.reference == ""


def test_row_that_is_not_utf8_is_a_failure(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"path,sentence\na.wav,Gr\xfc\xdfe\nb.wav,fine\n")
    bad, good = check_positions(configured("table", path))
    assert isinstance(bad, Failure)
    assert isinstance(good, Utterance)
    assert "sentence is not UTF-8" in bad.message


def test_quote_that_never_ends_costs_one_row(tmp_path: Path):
    path = tmp_path / "a.csv"
    rows = "".join(f"{i}.wav,fine\n" for i in range(20_000))
    path.write_text(f'path,sentence\na.wav,"open\n{rows}')
    entries = list(corpora.read(configured("table", path)))
    assert isinstance(entries[0], Failure)
    assert "field larger than" in entries[0].message
    assert isinstance(entries[-1], Utterance)


def test_empty_table_is_refused(tmp_path: Path):
    (tmp_path / "a.tsv").write_text("")
    with pytest.raises(ValueError, match="is empty; a header is expected"):
        list(corpora.read(configured("table", tmp_path / "a.tsv")))


def test_table_that_is_not_utf8_says_how_to_convert_it(tmp_path: Path):
    for encoding in ("utf-16", "utf-16-le"):
        (tmp_path / "a.tsv").write_bytes("path\tsentence\na.wav\tx\n".encode(encoding))
        with pytest.raises(ValueError, match="header of .*a.tsv is not UTF-8.*iconv"):
            list(corpora.read(configured("table", tmp_path / "a.tsv")))


def test_folder_instead_of_a_table_is_said_so(tmp_path: Path):
    with pytest.raises(ValueError, match="is a folder, but kind table reads one file"):
        list(corpora.read(configured("table", tmp_path)))
