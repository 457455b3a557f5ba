import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from pipeline.config import DecodingConfig, TeacherConfig
from pipeline.teacher import Teacher, load_teacher, resolve_revision
from pipeline.teacher.transformers_engine import compression_ratio
from tests.pipeline.conftest import SENTENCE, write_teacher

RATE = 16_000


@pytest.fixture(scope="module")
def teacher(teacher_folder: Path) -> Teacher:
    return load(teacher_folder, DecodingConfig(max_new_tokens=20))


def load(folder: Path, decoding: DecodingConfig) -> Teacher:
    config = TeacherConfig(model=str(folder), device="cpu")
    return load_teacher(config, decoding, resolve_revision(config))


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).normal(size=round(seconds * RATE)) * 0.1
    return samples.astype(np.float32)


def test_label_has_text_tokens_and_segments_without_prefix(teacher: Teacher, teacher_folder: Path):
    (label,) = teacher.label([noise(2)], "en")
    tokenizer = transformers.WhisperTokenizer.from_pretrained(teacher_folder)
    assert label.text == SENTENCE
    shown = tokenizer.decode(label.tokens, decode_with_timestamps=True)
    assert shown == f"<|0.00|> {SENTENCE}<|1.00|>"
    (segment,) = label.segments
    assert (segment.start, segment.end, segment.text) == (0.0, 1.0, SENTENCE)


def test_label_carries_its_evidence(teacher: Teacher):
    (label,) = teacher.label([noise(2)], "en")
    assert not label.truncated
    assert label.temperature == 0.0
    assert label.language == "en"
    assert 0 < label.language_probability < 1
    assert 0 <= label.no_speech_prob < 1
    assert -5 < label.avg_logprob < 0
    assert label.compression_ratio == pytest.approx(compression_ratio(SENTENCE), abs=1e-4)


def test_average_log_probability_is_that_of_the_model(teacher_folder: Path):
    short = load(teacher_folder, DecodingConfig(max_new_tokens=20, timestamps=False))
    (label,) = short.label([noise(2)], "en")
    model = transformers.WhisperForConditionalGeneration.from_pretrained(teacher_folder)
    tokenizer = transformers.WhisperTokenizer.from_pretrained(teacher_folder)
    prompt = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    tokens = [*tokenizer.convert_tokens_to_ids(prompt), *label.tokens, end]
    features = transformers.WhisperFeatureExtractor()(noise(2), sampling_rate=RATE)
    with torch.no_grad():
        logits = model(
            torch.tensor(np.array(features.input_features)),
            decoder_input_ids=torch.tensor([tokens]),
        ).logits[0]
    spoken = range(len(prompt), len(tokens))
    by_hand = [logits[i - 1].log_softmax(-1)[tokens[i]].item() for i in spoken]
    assert label.avg_logprob == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-3)


def test_label_that_hits_the_token_limit_is_truncated(teacher_folder: Path):
    (label,) = load(teacher_folder, DecodingConfig(max_new_tokens=2)).label([noise(1)], "en")
    assert label.truncated
    assert len(label.tokens) == 2


def test_text_without_a_last_timestamp_ends_with_the_clip(teacher_folder: Path):
    (label,) = load(teacher_folder, DecodingConfig(max_new_tokens=3)).label([noise(2.5)], "en")
    assert label.segments[-1].end == 2.5


def test_token_limit_beyond_the_models_context_is_lowered(teacher_folder: Path):
    (label,) = load(teacher_folder, DecodingConfig(max_new_tokens=10_000)).label([noise(1)], "en")
    assert label.text == SENTENCE


def test_beam_search_gives_finite_evidence(teacher_folder: Path):
    beams = load(teacher_folder, DecodingConfig(max_new_tokens=20, num_beams=2))
    (label,) = beams.label([noise(1)], "en")
    assert label.text == SENTENCE
    assert math.isfinite(label.avg_logprob)


def test_clips_of_a_batch_keep_their_order(teacher: Teacher):
    first, second = noise(30, seed=1), noise(1, seed=2)
    both = teacher.label([first, second], "en")
    alone = teacher.label([second], "en")
    assert both[1].no_speech_prob == pytest.approx(alone[0].no_speech_prob, abs=2e-4)


def test_unknown_language_is_refused_with_those_known(teacher: Teacher):
    with pytest.raises(ValueError, match="does not know language 'xx'"):
        teacher.label([noise(1)], "xx")


def test_compression_ratio_is_high_for_a_loop():
    assert compression_ratio("again " * 100) > 2.4
    assert compression_ratio("") == 0.0


def test_revision_of_a_folder_changes_with_its_weights(teacher_folder: Path, tmp_path: Path):
    moved = shutil.copytree(teacher_folder, tmp_path / "moved")
    other = write_teacher(tmp_path / "other", "a box of ropes")
    revision = resolve_revision(TeacherConfig(model=str(teacher_folder)))
    assert resolve_revision(TeacherConfig(model=str(moved))) == revision
    assert resolve_revision(TeacherConfig(model=str(other))) != revision


def test_commit_is_its_own_revision():
    commit = "0123456789abcdef0123456789abcdef01234567"
    config = TeacherConfig(model="openai/whisper-tiny", revision=commit)
    assert resolve_revision(config) == commit


def test_folder_without_weights_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        resolve_revision(TeacherConfig(model=str(tmp_path)))


def test_name_that_is_neither_folder_nor_hub_id_is_refused():
    with pytest.raises(FileNotFoundError, match="no local folder"):
        resolve_revision(TeacherConfig(model="no/such/folder"))


def test_token_ends_lead_from_tokens_to_the_characters_of_the_text(
    teacher: Teacher, teacher_folder: Path
):
    (label,) = teacher.label([noise(2)], "en")
    tokenizer = transformers.WhisperTokenizer.from_pretrained(teacher_folder)
    assert len(label.token_ends) == len(label.tokens)
    assert label.token_ends[0] == 0  # <|0.00|>
    assert label.token_ends[-2:] == (len(label.text),) * 2  # the last word and <|1.00|>
    for i, end in enumerate(label.token_ends, start=1):
        said = tokenizer.decode(label.tokens[:i], skip_special_tokens=True)
        assert label.text[:end] == said.strip()
