import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.trail import Trail, unwatched


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "failures" / "block.trail"


def crash(path: Path, utterance: str) -> None:
    """End a process while it reads an utterance."""
    child = os.fork()
    if child == 0:
        with Trail(path) as trail:
            with trail.reading("one before"):
                pass
            with trail.reading(utterance):
                os._exit(1)
    os.waitpid(child, 0)


def test_two_processes_that_end_over_an_utterance_make_it_poisonous(path: Path):
    crash(path, "a")
    assert Trail(path).poisonous == {}
    crash(path, "b")
    crash(path, "a")
    assert Trail(path).poisonous == {"a": 2}


def test_nothing_is_left_where_nothing_happened(path: Path):
    with Trail(path) as trail, trail.reading("a"):
        assert path.exists()
    assert not path.exists()
    with Trail(path) as trail, unwatched("a"):
        pass
    assert not list(path.parent.iterdir())


def test_an_error_is_no_crash_and_earlier_ones_are_remembered(path: Path):
    with pytest.raises(KeyError), Trail(path) as trail, trail.reading("a"):
        raise KeyError
    assert not path.exists()
    crash(path, "a")
    with pytest.raises(KeyError), Trail(path) as trail, trail.reading("b"):
        raise KeyError
    crash(path, "a")
    assert Trail(path).poisonous == {"a": 2}
    with Trail(path):
        pass
    assert not path.exists()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_the_last_id_is_read_back_whatever_stood_there_before(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("trail") / "block.trail"
    with Trail(path) as trail, ExitStack() as read:
        for name in names:
            read.enter_context(trail.reading(name))
        assert Trail(path)._crashes == {names[-1]: 1}


def test_a_damaged_trail_is_begun_again(path: Path, caplog):
    path.parent.mkdir()
    path.write_bytes(b'{"reading": "a", "cra')
    assert Trail(path).poisonous == {}
    assert "is damaged and begun again" in caplog.text
