from collections import Counter
from pathlib import Path

import pytest

from distill.config import ValidationConfig
from distill.evaluate_config import EvaluateConfig
from distill.evaluate_data import read_clips
from distill.validation import validation_clips
from tests.distill.material import make_audio, make_sample, write_dataset


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of a large corpus before one of a small one; some clips have no reference."""
    shards = [
        [
            (
                make_sample(text, id=f"{corpus}-{number}", corpus=corpus, split="dev"),
                make_audio(1.0),
            )
            for number, text in enumerate(texts)
        ]
        for corpus, texts in (("large", "abc"), ("large", "de"), ("small", ("", "f", "g")))
    ]
    return write_dataset(tmp_path_factory.mktemp("corpora"), *shards)


@pytest.mark.parametrize(
    ("max_clips", "expected"),
    [
        (3, {"large": 2, "small": 1}),
        (4, {"large": 2, "small": 2}),
        (None, {"large": 5, "small": 2}),
    ],
)
def test_a_limit_takes_as_many_clips_of_each_corpus(
    corpora: Path, max_clips: int | None, expected: dict[str, int]
):
    config = ValidationConfig(shards=[str(corpora)], max_clips=max_clips)
    assert Counter(sample.corpus for sample, _ in validation_clips(config)) == expected
    evaluation = EvaluateConfig(
        models=["m"], data=[str(corpora)], output="o", split="dev", max_clips=max_clips
    )
    assert Counter(clip.id.split("-")[0] for clip in read_clips(evaluation)) == expected


def test_a_limit_takes_as_many_clips_of_each_source(corpora: Path, tmp_path: Path):
    manifest = tmp_path / "m.jsonl"
    line = '{"audio_filepath": "a.wav", "text": "h", "duration": 1, "id": "%d"}\n'
    manifest.write_text("".join(line % number for number in range(9)))
    config = EvaluateConfig(
        models=["m"], data=[str(manifest), str(corpora)], output="o", split="dev", max_clips=6
    )
    clips = read_clips(config)
    assert sorted(clip.id for clip in clips) == [
        "0",
        "1",
        "large-0",
        "large-1",
        "small-1",
        "small-2",
    ]
