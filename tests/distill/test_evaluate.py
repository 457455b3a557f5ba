import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jiwer
import pytest
from transformers import WhisperForConditionalGeneration
from whisper_normalizer.english import EnglishTextNormalizer

from distill.config import DataConfig, EvaluateConfig, InitConfig, LossConfig, TrainConfig
from distill.evaluate import EvaluationBatch, evaluate, generate, make_batches, read_clips
from distill.student import load_model, num_parameters
from distill.train import init, train
from tests.distill.material import make_audio, make_sample, write_dataset

Configure = Callable[..., EvaluateConfig]


@pytest.fixture(scope="module")
def student_folder(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("student")
    return init(InitConfig(teacher=str(teacher_folder), output=str(output), decoder_layers=1))


@pytest.fixture
def configure(
    dataset: Path, student_folder: Path, teacher_folder: Path, tmp_path: Path
) -> Configure:
    def make(**fields: Any) -> EvaluateConfig:
        config = EvaluateConfig(
            shards=[str(dataset)],
            student=str(student_folder),
            teacher=str(teacher_folder),
            output=str(tmp_path / "new" / "results.json"),
            batch_size=4,
            bootstrap_samples=50,
            device="cpu",
        )
        return dataclasses.replace(config, **fields)

    return make


def hypotheses(config: EvaluateConfig, role: str) -> list[dict[str, Any]]:
    path = Path(config.output).with_name(f"results-{role}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_results_have_the_documented_fields(configure: Configure, teacher_folder: Path):
    config = configure()
    results = evaluate(config)
    written = json.loads(Path(config.output).read_text())
    assert written == dataclasses.asdict(results)
    assert set(written) == {
        "split",
        "num_clips",
        "audio_seconds",
        "models",
        "speed_ratio",
        "parameter_ratio",
    }
    assert set(written["models"]) == {"teacher", "student"}
    for role in written["models"].values():
        assert set(role) == {
            "model",
            "wer",
            "wer_low",
            "wer_high",
            "parameters",
            "decode_seconds",
            "rtfx",
        }
    assert (results.split, results.num_clips, results.audio_seconds) == ("test", 6, 16.4)
    teacher, student = results.models["teacher"], results.models["student"]
    assert teacher.parameters == num_parameters(load_model(str(teacher_folder)))
    assert results.parameter_ratio == pytest.approx(student.parameters / teacher.parameters, 1e-3)
    assert results.speed_ratio == pytest.approx(
        teacher.decode_seconds / student.decode_seconds, abs=1e-3
    )
    assert teacher.rtfx == pytest.approx(16.4 / teacher.decode_seconds, rel=0.02)


def test_wer_is_what_jiwer_and_the_normaliser_give(configure: Configure):
    config = configure()
    results = evaluate(config)
    normalize = EnglishTextNormalizer()
    for role, found in results.models.items():
        lines = hypotheses(config, role)
        assert len(lines) == results.num_clips
        references = [normalize(line["reference"]) for line in lines]
        expected = jiwer.wer(references, [normalize(line["hypothesis"]) for line in lines])
        assert found.wer == pytest.approx(expected, abs=1e-12)
        assert found.wer_low <= found.wer <= found.wer_high


def test_batch_size_does_not_change_what_is_heard(configure: Configure):
    heard = []
    for batch_size in (1, 3):
        config = configure(batch_size=batch_size, teacher=None)
        evaluate(config)
        heard.append(hypotheses(config, "student"))
    assert heard[0] == heard[1]


def test_a_student_can_be_judged_alone(configure: Configure):
    results = evaluate(configure(teacher=None, max_clips=2))
    assert set(results.models) == {"student"}
    assert (results.speed_ratio, results.parameter_ratio) == (None, None)
    assert results.num_clips == 2


def test_a_model_is_as_good_as_itself(configure: Configure, student_folder: Path):
    results = evaluate(configure(teacher=str(student_folder)))
    teacher, student = results.models["teacher"], results.models["student"]
    assert (teacher.wer, teacher.parameters) == (student.wer, student.parameters)


def test_a_student_that_knows_the_clips_by_heart_makes_no_error(
    configure: Configure, student_folder: Path, tmp_path: Path
):
    texts = ("the old house", "seven birds")
    clips = [
        (make_sample(t, id=f"c-{n}", split="test"), make_audio(1.0, 5 * n))
        for n, t in enumerate(texts)
    ]
    shards = [str(write_dataset(tmp_path / "two", clips))]
    data = DataConfig(
        shards=shards, split="test", timestamp_probability=0.0, batch_seconds=60.0, num_workers=0
    )
    student = train(
        TrainConfig(
            output=str(tmp_path / "run"),
            data=data,
            student=str(student_folder),
            teacher=None,
            loss=LossConfig(preset="labels-only"),
            freeze_encoder=False,
            max_steps=60,
            warmup_steps=5,
            learning_rate=6e-3,
            device="cpu",
        )
    )
    results = evaluate(configure(shards=shards, student=str(student), teacher=None))
    assert results.models["student"].wer == 0.0


def test_clips_are_decoded_in_their_own_language(
    processor, teacher: WhisperForConditionalGeneration, configure: Configure, tmp_path: Path
):
    clips = [
        (make_sample(id=f"c-{n}", split="test", language=code), make_audio(1.0, n))
        for n, code in enumerate(("en", "de", "en"))
    ]
    config = configure(shards=[str(write_dataset(tmp_path / "two", clips))])
    batches = list(make_batches(read_clips(config), processor, 8))
    assert [[s.language for s in b.samples] for b in batches] == [["de"], ["en", "en"]]
    seen = []
    teacher.model.decoder.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    for batch in batches:
        assert isinstance(batch, EvaluationBatch)
        seen.clear()
        generate(teacher, batch)
        prefix = processor.tokenizer.convert_ids_to_tokens(seen[0][0].tolist())
        code = batch.samples[0].language
        start = ["<|startoftranscript|>", f"<|{code}|>", "<|transcribe|>", "<|notimestamps|>"]
        assert prefix == start


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "dev"}, r"there are \['test', 'train'\]"),
        ({"student": "no/such/student"}, "no Whisper model could be loaded from 'no/such/student'"),
    ],
)
def test_what_is_missing_is_said(configure: Configure, fields: dict[str, str], message: str):
    with pytest.raises(ValueError, match=message):
        evaluate(configure(teacher=None, **fields))


def test_a_split_without_references_is_refused(configure: Configure, tmp_path: Path):
    clips = [(make_sample(reference="", id="c", split="test"), make_audio(1.0))]
    shards = [str(write_dataset(tmp_path / "silent", clips))]
    with pytest.raises(ValueError, match="no clip of split 'test' has a reference"):
        evaluate(configure(shards=shards))
