import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.alignment_heads import choose_alignment_heads, clips_to_align, following
from distill.config import TrainConfig
from distill.data_config import DataConfig, ReadFilterConfig
from distill.student import load_model, load_processor
from distill.train import train
from distill.whisper_recognizer import WhisperRecognizer
from distill.windows import Window
from pipeline.schema import EMBEDDED_FOLDER
from tests.distill.material import make_audio, make_sample, write_dataset

TEXT = "they came home late and sold the old boat again"


@pytest.fixture
def spoken(tmp_path: Path) -> DataConfig:
    """Clips of long enough texts, one of them cut off."""
    clips = [
        (make_sample(TEXT, 3.0, id=f"c-{n}", truncated=n == 1), make_audio(3.0, n))
        for n in range(4)
    ]
    return DataConfig(shards=[str(write_dataset(tmp_path / "spoken", clips))], num_workers=0)


def test_a_head_that_follows_the_speech_is_told_from_those_that_do_not():
    tokens, frames = 10, 80
    places = np.arange(frames)[None] - 8 * np.arange(tokens)[:, None]
    along = ((places >= 0) & (places < 8)).astype(float)
    maps = np.stack([along, along[::-1], np.ones_like(along), along[:1].repeat(tokens, 0)])
    forward, backward, everywhere, stuck = following(maps[None])[0]
    assert forward == pytest.approx(1.0)
    assert backward < 0.3
    assert everywhere == pytest.approx(1 / tokens, abs=0.01)
    assert stuck < 0.3


@given(st.integers(1, 12), st.integers(12, 60), st.integers(0, 1000))
def test_a_head_scores_from_chance_to_one(tokens: int, frames: int, seed: int):
    maps = np.random.default_rng(seed).random((1, 2, tokens, frames))
    found = following(maps)
    assert ((found >= 0) & (found <= 1 + 1e-9)).all()


def test_clips_that_are_short_or_cut_off_or_not_learnt_from_are_not_shown(
    spoken: DataConfig, data_config: Callable[..., DataConfig]
):
    assert [s.id for s, _ in clips_to_align(spoken)] == ["c-0", "c-2", "c-3"]
    assert len(clips_to_align(spoken, 2)) == 2
    filtered = DataConfig(shards=spoken.shards, filter=ReadFilterConfig(corpora=["other"]))
    assert clips_to_align(filtered) == []
    assert all(len(s.pseudo_label.split()) >= 6 for s, _ in clips_to_align(data_config()))


def test_without_clips_no_heads_are_chosen(teacher_folder: Path):
    model, processor = load_model(str(teacher_folder)), load_processor(str(teacher_folder))
    assert choose_alignment_heads(model, processor, []) == []


def test_a_trained_student_has_the_heads_that_its_own_attention_shows(
    short_training: TrainConfig, spoken: DataConfig
):
    config = TrainConfig(**vars(short_training) | {"data": spoken, "max_steps": 1})
    folder = train(config)
    model, processor = load_model(str(folder)), load_processor(str(folder))
    settings = model.generation_config
    heads = getattr(settings, "alignment_heads", None)
    assert heads
    assert heads == choose_alignment_heads(model, processor, clips_to_align(spoken))
    assert all(layer < 2 and head < 2 for layer, head in heads)


def test_words_of_the_embedded_teacher_by_chosen_heads_are_in_order_and_inside_the_clip():
    """On real material: what training writes is what word times are read from."""
    from distill.evaluate_config import EvaluateConfig
    from distill.evaluate_data import read_clips

    model, processor = load_model("embedded"), load_processor("embedded")
    data = EvaluateConfig(
        models=["embedded"], data=[str(EMBEDDED_FOLDER / "test.jsonl")], output="", max_clips=4
    )
    clips = read_clips(data)
    recognizer = WhisperRecognizer(model.eval(), processor, "embedded")
    windows = [Window(samples=c.audio(), language="en", words=True) for c in clips]
    for clip, heard in zip(clips, recognizer.hear(windows), strict=True):
        times = [t for pair in heard.token_times for t in pair]
        assert times == sorted(times)
        assert all(0 <= t <= clip.duration_seconds + 0.02 for t in times)


def test_no_clips_leave_the_heads_that_came_with_the_layers(short_training: TrainConfig):
    config = dataclasses.replace(short_training, max_steps=1, alignment_clips=0)
    before, after = (load_model(str(name)) for name in (config.student, train(config)))
    heads = [vars(model.generation_config)["alignment_heads"] for model in (before, after)]
    assert heads[0] == heads[1]
    with pytest.raises(ValueError, match="alignment_clips is -1"):
        dataclasses.replace(config, alignment_clips=-1)
