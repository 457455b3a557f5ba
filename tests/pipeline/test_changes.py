import dataclasses
import logging
from pathlib import Path

import pytest

from pipeline.changes import Changes, changes
from pipeline.config import DecodingConfig
from pipeline.filters import FilterConfig
from pipeline.forecast import make_forecast
from pipeline.layout import Layout
from pipeline.parts import Part
from pipeline.plan import make_plan
from pipeline.run import run, run_part
from pipeline.teacher import resolve_revision, settle
from tests.pipeline.conftest import write_teacher


def changed(config) -> Changes:
    config = dataclasses.replace(config, teacher=settle(config.teacher))
    keys = make_plan(config, resolve_revision(config.teacher)).keys
    return changes(Layout(Path(config.output)), config, keys)


def test_a_run_with_other_options_names_them_and_says_how_to_keep_both(
    corpus, configure, tones, tmp_path, caplog
):
    config = configure(corpus(*tones(3)))
    run(config)
    assert "other options" not in caplog.text
    teacher = dataclasses.replace(
        config.teacher, model=str(write_teacher(tmp_path / "other", "a box of ropes"))
    )
    other = dataclasses.replace(config, teacher=teacher, decoding=DecodingConfig(max_new_tokens=21))
    assert len(make_forecast(other).changed) == 3
    run(other)
    (warning,) = [r.getMessage() for r in caplog.records if "was labelled with" in r.getMessage()]
    assert f"teacher.model was {config.teacher.model!r}, now {teacher.model!r}" in warning
    assert "teacher.revision was" in warning
    assert "decoding.max_new_tokens was 20, now 21" in warning
    assert "2 blocks are labelled" in warning
    assert "name another `output`" in warning


def test_another_filter_is_named_and_is_no_warning(corpus, configure, tones, caplog):
    config = configure(corpus(*tones(3)))
    run(config)
    caplog.set_level(logging.INFO)
    run(dataclasses.replace(config, filter=FilterConfig(max_wer=0.5)))
    (said,) = [r for r in caplog.records if "other options" in r.getMessage()]
    assert said.levelname == "INFO"
    assert "filter.max_wer was 0.1, now 0.5. 2 shards are written again" in said.getMessage()


def test_what_decides_neither_labels_nor_shards_is_no_change(corpus, configure, tones):
    config = configure(corpus(*tones(2)))
    assert changed(config) == Changes()  # no output yet
    run(config)
    dearer = dataclasses.replace(config, price_per_hour=9.0, max_failed_fraction=0.5)
    assert changed(dearer) == Changes()


def test_a_configuration_of_another_release_is_passed_over(corpus, configure, tones, caplog):
    config = configure(corpus(*tones(2)))
    run(config)
    (Path(config.output) / "config.yaml").write_text("bogus: 1\n")
    other = dataclasses.replace(config, filter=FilterConfig(max_wer=0.5))
    assert changed(other) == Changes()
    assert "cannot be told" in caplog.text


def test_other_corpora_are_named_before_their_shards_are_removed(corpus, configure, tones, caplog):
    lines = tones(2)
    first, second = corpus(*lines), corpus(*lines, split="dev")
    run(configure(first, second))
    caplog.clear()
    caplog.set_level(logging.INFO)
    run(configure(first))
    warning, *removed = [r.getMessage() for r in caplog.records if "dev" in r.getMessage()]
    assert f"corpus mine-dev was {second.path!r}, now not there. 0 blocks" in warning
    assert "the shards of 1 that are not planned any more are removed" in warning
    assert "name another `output`" in warning
    assert len(removed) == 2


def test_the_output_of_another_dataset_is_refused_and_nothing_in_it_touched(
    corpus, configure, tones
):
    lines = tones(2)
    config = configure(corpus(*lines))
    run(config)
    root = Path(config.output)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    other = configure(corpus(*lines, name="other"))
    for do in (run, lambda config: run_part(config, Part(number=0, of=2))):
        with pytest.raises(ValueError, match="holds another dataset: of its 1 blocks, mine-train-"):
            do(other)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_teacher_that_cannot_work_removes_nothing(corpus, configure, tones, tmp_path):
    lines = tones(2)
    first, second = corpus(*lines), corpus(*lines, split="dev")
    config = configure(first, second)
    run(config)
    folder = write_teacher(tmp_path / "other", "a box of ropes")
    (folder / "config.json").write_text('{"model_type": "wav2vec2"}')
    teacher = dataclasses.replace(config.teacher, model=str(folder))
    with pytest.raises(ValueError, match="is a wav2vec2 model"):
        run(configure(first, teacher=teacher))
    assert (Path(config.output) / "shards" / "mine-dev-00000.tar").is_file()
