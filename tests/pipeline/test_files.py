import pytest

from pipeline.files import replacing, write_text


def test_a_file_appears_whole_in_a_folder_made_for_it(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "naïve\n")
    assert path.read_bytes() == "naïve\n".encode()
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_nothing_stands_under_the_name_before_the_end(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.name.endswith(".tmp")
    assert path.read_text() == "half"


def fail_half_way(path):
    with replacing(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError


def test_an_error_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError):
        fail_half_way(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_others_may_read_what_was_written(tmp_path):
    write_text(tmp_path / "a.txt", "x")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644
