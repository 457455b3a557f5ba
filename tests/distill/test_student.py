from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import WhisperConfig, WhisperForConditionalGeneration

from distill.student import (
    alignment_heads,
    chosen_layers,
    encode,
    is_multilingual,
    keep_generation_settings,
    layer_map,
    load_model,
    load_processor,
    make_student,
    num_parameters,
)


@pytest.mark.parametrize(
    ("teacher", "student", "mapping"),
    [
        (32, 1, [31]),
        (32, 2, [0, 31]),
        (32, 3, [0, 15, 31]),
        (32, 4, [0, 10, 20, 31]),
        (32, 8, [0, 4, 8, 13, 17, 22, 26, 31]),
        (32, 16, [*range(0, 30, 2), 31]),
        (24, 2, [0, 23]),
        (12, 4, [0, 3, 7, 11]),
        (12, 2, [0, 11]),
        (4, 2, [0, 3]),
        (1, 1, [0]),
    ],
)
def test_layers_are_spread_as_in_the_reference_code(teacher: int, student: int, mapping: list[int]):
    assert layer_map(teacher, student) == mapping


@given(st.integers(1, 64).flatmap(lambda t: st.tuples(st.just(t), st.integers(1, t))))
def test_layers_rise_from_the_first_to_the_last(sizes: tuple[int, int]):
    teacher, student = sizes
    mapping = layer_map(teacher, student)
    assert len(mapping) == student
    assert mapping == sorted(set(mapping))
    assert mapping[-1] == teacher - 1
    assert student == 1 or mapping[0] == 0
    steps = [b - a for a, b in zip(mapping, mapping[1:], strict=False)]
    assert not steps or max(steps) - min(steps) <= 2


def test_as_many_layers_as_the_teacher_are_all_of_them():
    assert layer_map(7, 7) == list(range(7))


@pytest.mark.parametrize("student", [0, -1, 5])
def test_a_number_of_layers_that_cannot_be_is_refused(student: int):
    with pytest.raises(ValueError, match="ask for 1 to 4"):
        layer_map(4, student)


def test_a_student_has_the_teachers_weights(teacher: WhisperForConditionalGeneration):
    student = make_student(teacher, decoder_layers=2)
    ours, theirs = student.state_dict(), teacher.state_dict()
    for name, weight in ours.items():
        source = name.replace("decoder.layers.1.", "decoder.layers.3.")
        assert torch.equal(weight, theirs[source]), name
    assert student.config.decoder_layers == len(student.model.decoder.layers) == 2
    assert student.config.encoder_layers == len(student.model.encoder.layers) == 2
    assert num_parameters(student) < num_parameters(teacher)


def test_a_student_may_have_fewer_encoder_layers(teacher: WhisperForConditionalGeneration):
    student = make_student(teacher, decoder_layers=1, encoder_layers=1)
    ours, theirs = student.state_dict(), teacher.state_dict()
    for part, last in (("encoder", 1), ("decoder", 3)):
        copied = ours[f"model.{part}.layers.0.fc1.weight"]
        assert torch.equal(copied, theirs[f"model.{part}.layers.{last}.fc1.weight"])


@pytest.mark.parametrize(("decoder", "encoder"), [(0, None), (5, None), (2, 0), (2, 3)])
def test_a_student_of_impossible_size_is_refused(
    teacher: WhisperForConditionalGeneration, decoder: int, encoder: int | None
):
    with pytest.raises(ValueError, match="cannot be made from a teacher"):
        make_student(teacher, decoder, encoder)


def test_the_student_does_not_share_memory_with_its_teacher(
    teacher: WhisperForConditionalGeneration,
):
    student = make_student(teacher)
    before = teacher.model.encoder.conv1.weight.clone()
    with torch.no_grad():
        student.model.encoder.conv1.weight.add_(1)
    assert torch.equal(teacher.model.encoder.conv1.weight, before)
    assert teacher.config.decoder_layers == 4


def test_generation_settings_are_kept_with_the_heads_of_the_layers_that_are(
    teacher: WhisperForConditionalGeneration, tmp_path: Path
):
    student = make_student(teacher)
    keep_generation_settings(student)
    student.save_pretrained(tmp_path)
    for model in (student, load_model(str(tmp_path))):
        settings: Any = model.generation_config
        assert settings.alignment_heads == [[1, 1]]
        kept, expected = settings.to_dict(), teacher.generation_config.to_dict()
        for name in ("lang_to_id", "task_to_id", "no_timestamps_token_id", "is_multilingual"):
            assert kept[name] == expected[name]
    assert teacher.generation_config.to_dict()["alignment_heads"]


def test_a_whole_copy_keeps_its_alignment_heads(teacher: WhisperForConditionalGeneration):
    settings = make_student(teacher, decoder_layers=4).generation_config.to_dict()
    assert settings["alignment_heads"] == teacher.generation_config.to_dict()["alignment_heads"]


def test_a_student_works_after_saving_and_loading(
    teacher: WhisperForConditionalGeneration, tmp_path: Path
):
    student = make_student(teacher).eval()
    keep_generation_settings(student)
    student.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path)).eval()
    features, inputs = torch.randn(2, 80, 3000), torch.tensor([[5, 6, 7]] * 2)
    with torch.no_grad():
        before, after = (
            model(input_features=features, decoder_input_ids=inputs).logits
            for model in (student, loaded)
        )
        tokens = loaded.generate(features, language="en", task="transcribe", max_new_tokens=4)
    assert torch.equal(before, after)
    assert torch.as_tensor(tokens).shape[0] == 2
    assert loaded.dtype == torch.float32


@torch.no_grad()
def test_a_full_window_is_encoded_as_the_library_does(teacher: WhisperForConditionalGeneration):
    features = torch.randn(2, 80, 3000)
    expected = teacher.model.encoder(features).last_hidden_state
    assert torch.equal(encode(teacher.model.encoder, features), expected)


@torch.no_grad()
def test_a_short_window_is_the_beginning_of_a_long_one(teacher: WhisperForConditionalGeneration):
    encoder, features = teacher.model.encoder, torch.randn(1, 80, 100)
    encoded = encode(encoder, features)
    assert encoded.shape == (1, 50, 32)
    encoder.embed_positions.weight[50:] = 0.0
    assert torch.equal(encode(encoder, features), encoded)
    encoder.embed_positions.weight[:50] = 0.0
    assert not torch.allclose(encode(encoder, features), encoded)


@pytest.mark.parametrize("frames", [101, 3002])
def test_a_window_that_does_not_fit_is_refused(
    teacher: WhisperForConditionalGeneration, frames: int
):
    with pytest.raises(ValueError, match="does not fit"):
        encode(teacher.model.encoder, torch.zeros(1, 80, frames))


@pytest.mark.parametrize("load", [load_model, load_processor])
def test_a_missing_model_is_said_by_name(load, tmp_path: Path):
    with pytest.raises(ValueError, match=r"no Whisper model could be loaded from .*/nothing/here"):
        load(str(tmp_path / "nothing" / "here"))


def test_a_model_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="no Whisper model .*'bert'"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [([0, 3], [0, 3]), ([0, -1], [0, 3]), ([2], [2]), ([-2, -1], [2, 3]), (2, [0, 3])],
)
def test_layers_may_be_listed_from_either_end(layers, expected: list[int]):
    assert chosen_layers(4, layers) == expected


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([0, 4], r"layers 0 to 3"),
        ([-5], r"layers 0 to 3"),
        ([3, 0], "in rising order"),
        ([1, 1], "in rising order"),
        ([3, -1], "in rising order"),
        ([], "at least one"),
    ],
)
def test_layers_the_teacher_lacks_are_refused_not_left_uncopied(
    teacher: WhisperForConditionalGeneration, layers: list[int], message: str
):
    with pytest.raises(ValueError, match=message):
        make_student(teacher, layers)


def test_listed_layers_are_the_ones_copied(teacher: WhisperForConditionalGeneration):
    student = make_student(teacher, [1, -1], [0])
    ours, theirs = student.state_dict(), teacher.state_dict()
    for place, layer in enumerate((1, 3)):
        copied = ours[f"model.decoder.layers.{place}.fc1.weight"]
        assert torch.equal(copied, theirs[f"model.decoder.layers.{layer}.fc1.weight"])
    assert student.config.encoder_layers == 1


def test_a_student_may_be_made_of_a_student(teacher: WhisperForConditionalGeneration):
    once = make_student(teacher, [0, 1, 3])
    twice = make_student(once, [0, 2])
    last = teacher.state_dict()["model.decoder.layers.3.fc1.weight"]
    assert torch.equal(twice.state_dict()["model.decoder.layers.1.fc1.weight"], last)
    settings: Any = twice.generation_config
    assert settings.alignment_heads == [[1, 1]]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([0, 2], [[1, 0]]),
        ([0, 2, 3], [[1, 0], [2, 1]]),
        ([0, 1], [[1, 0], [1, 1]]),
        ([1], [[0, 0], [0, 1]]),
    ],
)
def test_alignment_heads_follow_their_layers_or_are_those_of_the_upper_half(
    layers: list[int], expected: list[list[int]]
):
    assert alignment_heads([[2, 0], [3, 1]], layers, 2) == expected


def assert_word_timestamps(model: WhisperForConditionalGeneration) -> None:
    found = model.generate(
        torch.randn(1, 80, 3000),
        language="en",
        task="transcribe",
        return_token_timestamps=True,
        return_dict_in_generate=True,
        max_new_tokens=8,
    )
    assert found["token_timestamps"].shape == found["sequences"].shape  # pyright: ignore


@pytest.mark.parametrize("layers", [[0, 3], [0, 1]])
def test_a_student_gives_word_timestamps(
    teacher: WhisperForConditionalGeneration, layers: list[int]
):
    student = make_student(teacher, layers).eval()
    keep_generation_settings(student)
    assert_word_timestamps(student)


@pytest.mark.parametrize("heads", [None, [[31, 2]], [[31, 2], [1, 0], [0, 9]]])
def test_a_student_whose_settings_name_heads_it_lacks_gives_word_timestamps(
    teacher: WhisperForConditionalGeneration, tmp_path: Path, heads: list[list[int]] | None
):
    student = make_student(teacher)
    settings: Any = student.generation_config
    if heads is None:
        del settings.alignment_heads
    else:
        settings.alignment_heads = heads
    keep_generation_settings(student)
    student.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path)).eval()
    repaired: Any = loaded.generation_config
    assert repaired.alignment_heads == ([[1, 0]] if heads and len(heads) > 1 else [[1, 0], [1, 1]])
    assert_word_timestamps(loaded)


@pytest.mark.parametrize(("known", "size", "expected"), [(True, 51864, True), (None, 51864, False)])
def test_a_model_says_whether_it_knows_languages_or_its_vocabulary_does(
    teacher: WhisperForConditionalGeneration, known: bool | None, size: int, expected: bool
):
    settings: Any = teacher.generation_config
    settings.is_multilingual = known
    teacher.config.vocab_size = size
    assert is_multilingual(teacher) is expected


@pytest.mark.parametrize(("vocabulary", "mels"), [(51864, 80), (51865, 80), (51866, 128)])
def test_students_of_every_generation_of_whisper_keep_vocabulary_and_mel_bands(
    vocabulary: int, mels: int
):
    config = WhisperConfig(
        vocab_size=vocabulary,
        num_mel_bins=mels,
        d_model=8,
        encoder_layers=1,
        decoder_layers=3,
        encoder_attention_heads=1,
        decoder_attention_heads=1,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
    )
    student = make_student(WhisperForConditionalGeneration(config), [0, 2])
    assert student.proj_out.weight.shape[0] == vocabulary
    with torch.no_grad():
        heard = encode(student.model.encoder, torch.randn(1, mels, 20))
    assert heard.shape == (1, 10, 8)
