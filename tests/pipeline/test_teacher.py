import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import pipeline.teacher
from pipeline.config import DecodingConfig, TeacherConfig
from pipeline.teacher import Teacher, load_teacher, resolve_revision
from pipeline.teacher.evidence import compression_ratio
from tests.hub_server import no_hub
from tests.pipeline.conftest import SENTENCE, write_teacher

RATE = 16_000

Load = Callable[..., Teacher]


@pytest.fixture(scope="module", params=["transformers", "ctranslate2"])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def load(teacher_folder: Path, engine: Any) -> Load:
    """Load the scripted teacher with one of the engines."""

    def make(**decoding: Any) -> Teacher:
        config = TeacherConfig(
            model=str(teacher_folder), engine=engine, device="cpu", dtype="float32"
        )
        options = DecodingConfig(**{"max_new_tokens": 20, **decoding})
        return load_teacher(config, options, resolve_revision(config))

    return make


@pytest.fixture(scope="module")
def teacher(load: Load) -> Teacher:
    return load()


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


def test_average_log_probability_is_that_of_the_model(load: Load, teacher_folder: Path):
    short = load(timestamps=False)
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
    never = ["<|startoftranscript|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>"]
    never += ["<|startofprev|>", "<|nospeech|>", "<|nocaptions|>"]
    known = tokenizer.get_vocab()
    logits[:, [known[name] for name in never if name in known]] = -torch.inf  # as OpenAI does
    by_hand = [logits[i - 1].log_softmax(-1)[tokens[i]].item() for i in spoken]
    assert label.avg_logprob == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-3)


def test_label_that_hits_the_token_limit_is_truncated(load: Load):
    (label,) = load(max_new_tokens=2).label([noise(1)], "en")
    assert label.truncated
    assert len(label.tokens) == 2


def test_text_without_a_last_timestamp_ends_with_the_clip(load: Load):
    (label,) = load(max_new_tokens=3).label([noise(2.5)], "en")
    assert label.segments[-1].end == 2.5


def test_token_limit_beyond_the_models_context_is_lowered(load: Load):
    (label,) = load(max_new_tokens=10_000).label([noise(1)], "en")
    assert label.text == SENTENCE


def test_beam_search_gives_finite_evidence(load: Load):
    (label,) = load(num_beams=2, token_logprobs=True).label([noise(1)], "en")
    assert len(label.token_logprobs) == len(label.tokens)
    assert sum(label.token_logprobs) / len(label.tokens) == pytest.approx(
        label.avg_logprob, abs=0.1
    )
    assert label.text == SENTENCE
    assert math.isfinite(label.avg_logprob)


def changed(folder: Path, change: Callable[[Any, Any], None], **decoding: Any) -> Teacher:
    """Load the scripted teacher after a change of its position embeddings and its settings."""
    write_teacher(folder)
    model: Any = transformers.WhisperForConditionalGeneration.from_pretrained(folder)
    with torch.no_grad():
        change(model.model.decoder, model.generation_config)
    model.save_pretrained(folder)
    config = TeacherConfig(model=str(folder), engine="transformers", device="cpu", dtype="float32")
    options = DecodingConfig(max_new_tokens=20, **decoding)
    return load_teacher(config, options, resolve_revision(config))


def test_beams_keep_the_first_timestamp_where_the_model_sets_no_limit(tmp_path: Path):
    def late(decoder: Any, generation: Any) -> None:
        token = generation.no_timestamps_token_id + 1 + 60  # 1.2 s; OpenAI's limit is 1.0 s
        decoder.embed_positions.weight[2] = 20 * decoder.embed_tokens.weight[token]
        generation.max_initial_timestamp_index = None

    (label,) = changed(tmp_path, late, num_beams=2, temperatures=(0.0,)).label([noise(3)], "en")
    assert label.segments[0].start <= 1.0
    assert label.avg_logprob > -5  # one token that is forbidden would cost 100
    assert label.text == SENTENCE


def test_beams_say_what_the_likeliest_tokens_do_where_these_are_clear(load: Load):
    greedy, beams = load(token_logprobs=True), load(token_logprobs=True, num_beams=2)
    (first,), (second,) = greedy.label([noise(2)], "en"), beams.label([noise(2)], "en")
    assert second.tokens == first.tokens
    assert second.temperature == 0.0
    assert second.token_logprobs == pytest.approx(first.token_logprobs, abs=1e-3)


@pytest.mark.parametrize("temperature", [0.0, 0.4])
def test_scores_that_are_no_numbers_are_an_error_of_the_clip(tmp_path: Path, temperature: float):
    def broken(decoder: Any, generation: Any) -> None:
        decoder.embed_positions.weight[3] = torch.nan

    teacher = changed(tmp_path, broken, temperatures=(temperature,))
    with pytest.raises(ValueError, match="nan"):
        teacher.label([noise(1)], "en")


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


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer.json"])
def test_revision_of_a_folder_changes_with_its_settings(
    teacher_folder: Path, tmp_path: Path, name: str
):
    moved = shutil.copytree(teacher_folder, tmp_path / "moved")
    (moved / name).write_text((moved / name).read_text() + "\n")
    revision = resolve_revision(TeacherConfig(model=str(teacher_folder)))
    assert resolve_revision(TeacherConfig(model=str(moved))) != revision


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


def test_a_hub_that_is_away_is_said_and_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    no_hub(monkeypatch)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits to ask again"))
    with pytest.raises(FileNotFoundError, match=r"or its local cache\) does not have it.*refused"):
        resolve_revision(TeacherConfig(model="openai/whisper-nothing"))


def test_a_teacher_in_the_cache_needs_no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    no_hub(monkeypatch)
    cached = tmp_path / "snapshots" / "0123abc" / "config.json"
    monkeypatch.setattr(pipeline.teacher, "try_to_load_from_cache", lambda *_, **__: str(cached))
    assert resolve_revision(TeacherConfig(model="openai/whisper-tiny")) == "0123abc"


def test_log_probabilities_of_tokens_are_those_of_their_average(load: Load):
    (label,) = load(token_logprobs=True).label([noise(2)], "en")
    (plain,) = load().label([noise(2)], "en")
    assert plain.token_logprobs == ()
    assert label.tokens == plain.tokens
    assert len(label.token_logprobs) == len(label.tokens)
    end = label.avg_logprob * (len(label.tokens) + 1) - sum(label.token_logprobs)
    assert -5 < end < 0  # what is left is the end of text
    assert label.avg_logprob == pytest.approx(plain.avg_logprob, abs=2e-4)


def test_language_is_heard_where_none_is_given(teacher: Teacher):
    heard = teacher.label([noise(2), noise(1, seed=1)], "auto")
    for label, clip in zip(heard, [noise(2), noise(1, seed=1)], strict=True):
        (given,) = teacher.label([clip], label.language)
        assert given.language_probability == pytest.approx(label.language_probability, abs=2e-4)
        (other,) = teacher.label([clip], "en")
        assert other.language_probability <= label.language_probability


def test_an_improbable_label_is_decoded_again_at_every_temperature(load: Load):
    (label,) = load(logprob_threshold=-1e-4).label([noise(2)], "en")
    assert label.temperature == 1.0
    (once,) = load(logprob_threshold=-1e-4, temperatures=(0.0,)).label([noise(2)], "en")
    assert once.temperature == 0.0
    assert once.text == SENTENCE


def test_what_is_drawn_depends_on_seed_and_clip_and_not_on_the_batch(load: Load):
    hot = {"temperatures": (1.5,), "logprob_threshold": None, "compression_ratio_threshold": None}
    first, second = noise(2), noise(1, seed=1)
    teacher = load(**hot)
    together = teacher.label([first, second], "en")
    assert [teacher.label([clip], "en")[0].tokens for clip in (first, second)] == [
        label.tokens for label in together
    ]
    assert together[0].tokens != together[1].tokens  # it hears nothing: only the draws differ
    (other,) = load(seed=1, **hot).label([first], "en")
    assert other.tokens != together[0].tokens


def test_a_silent_clip_has_an_empty_label_and_keeps_its_evidence(load: Load):
    silent = load(no_speech_threshold=1e-9, logprob_threshold=0.0)
    (label,) = silent.label([noise(2)], "en")
    assert (label.text, label.tokens, label.segments) == ("", (), ())
    assert label.no_speech_prob >= 0
    assert label.avg_logprob < 0
    assert label.temperature == 0.0  # silence is not tried again
    assert not label.truncated


def test_prepared_clips_give_the_same_labels(teacher: Teacher):
    clips = [noise(2), noise(1)]
    assert teacher.label(teacher.prepare(clips), "en") == teacher.label(clips, "en")


def test_no_clips_have_no_labels(teacher: Teacher):
    assert teacher.label([], "en") == []
