"""What a drafted batch says is what the teacher alone says, token for token."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

from distill.decoder import Decoder
from distill.decoding import Answer, Limits, Prompt, decode
from distill.rules import Rules
from distill.speculative import Assistant, check_match, load_assistant, make_assistant
from distill.student import load_model, load_processor, make_student
from tests.shared_data import ABSENT, SPEECH, TEACHER

VOCABULARY, END, START, PREVIOUS, FIRST_TIMESTAMP = 90, 30, 31, 35, 39


def tiny_model(seed: int, layers: int = 2, positions: int = 40, std: float = 0.3) -> Any:
    """A Whisper of random weights that writes ends and timestamps now and then."""
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=VOCABULARY, d_model=16, encoder_layers=1, decoder_layers=layers,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=32, max_source_positions=12, max_target_positions=positions,
        num_mel_bins=8, init_std=std, eos_token_id=END, pad_token_id=END, bos_token_id=END,
        decoder_start_token_id=START, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig(
        eos_token_id=END, pad_token_id=END, decoder_start_token_id=START, is_multilingual=False,
        no_timestamps_token_id=FIRST_TIMESTAMP - 1, max_initial_timestamp_index=10,
        suppress_tokens=[1, 2, START, PREVIOUS], begin_suppress_tokens=[3, END],
        max_length=positions, return_timestamps=False,
    )  # fmt: skip
    return model


def planted(seed: int, positions: int = 40) -> tuple[Any, Any]:
    """A teacher and a student that agrees with it often: it has the first of its three layers."""
    teacher = tiny_model(seed, layers=3, positions=positions)
    for layer in teacher.model.decoder.layers[1:]:
        for weight in layer.parameters():
            weight.data *= 0.5
    student = make_student(teacher, decoder_layers=2).eval()
    return teacher, student


def rules(timestamps: bool = False) -> Rules:
    return Rules(
        end=END,
        first_timestamp=FIRST_TIMESTAMP,
        suppressed=frozenset({1, 2, START, PREVIOUS}),
        suppressed_first=frozenset({3, END}),
        timestamps=timestamps,
        max_initial_timestamp=10,
    )


def features(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, 8, 24, generator=torch.Generator().manual_seed(seed)) * 3


def make_prompts(rows: int, seed: int, timestamps: bool, previous: bool) -> list[Prompt]:
    """Prompts of different lengths, some of them with previous text."""
    generator = np.random.default_rng(seed)
    prompts = []
    for _ in range(rows):
        count = int(generator.integers(0, 12)) if previous else 0
        text = [PREVIOUS, *generator.integers(4, 29, count).tolist()] if count else []
        task = [START] if timestamps else [START, FIRST_TIMESTAMP - 1]
        prompts.append(Prompt(tokens=(*text, *task), start=len(text)))
    return prompts


def answers(
    teacher: Any, inputs: torch.Tensor, prompts: list[Prompt], rule: Rules, **options: Any
) -> list[Answer]:
    assistant: Assistant | None = options.pop("assistant", None)
    with torch.inference_mode():
        encoded = teacher.model.encoder(inputs).last_hidden_state
        own = None
        if assistant and assistant.encoder is not None:
            own = assistant.encoder(inputs).last_hidden_state
    return decode(
        Decoder(teacher.model.decoder, teacher.proj_out), encoded, prompts, rule,
        Limits(**options), assistant=assistant, assistant_encoded=own,
    )  # fmt: skip


def tokens_of(found: list[Answer]) -> list[tuple[int, ...]]:
    return [answer.tokens for answer in found]


def by_transformers(
    teacher: Any, inputs: torch.Tensor, prompt: Prompt, timestamps: bool
) -> tuple[int, ...]:
    """The row's greedy text as the library writes it, alone."""
    with torch.inference_mode():
        found = teacher.generate(
            inputs,
            decoder_input_ids=torch.tensor([prompt.tokens]),
            return_timestamps=timestamps,
            force_unique_generate_call=True,
            num_beams=1,
            do_sample=False,
        )
    tokens = found[0].tolist()
    if tokens[: len(prompt.tokens)] == [*prompt.tokens]:
        tokens = tokens[len(prompt.tokens) :]
    return tuple(tokens[: tokens.index(END)] if END in tokens else tokens)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 5),
    timestamps=st.booleans(),
    previous=st.booleans(),
    draft_length=st.sampled_from([None, 1, 2, 5, 11]),
    kind=st.sampled_from(["planted", "stranger", "itself"]),
)
def test_an_assistant_never_changes_a_token(
    seed: int, rows: int, timestamps: bool, previous: bool, draft_length: int | None, kind: str
):
    teacher, student = planted(seed)
    assistant = {"planted": student, "stranger": tiny_model(seed + 1), "itself": teacher}[kind]
    inputs, prompts = features(rows, seed), make_prompts(rows, seed, timestamps, previous)
    plain = answers(teacher, inputs, prompts, rules(timestamps))
    drafted = answers(
        teacher, inputs, prompts, rules(timestamps),
        assistant=make_assistant(assistant, teacher), draft_length=draft_length,
    )  # fmt: skip
    assert tokens_of(drafted) == tokens_of(plain)
    for one, other in zip(drafted, plain, strict=True):
        assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=1e-4)
        assert one.truncated == other.truncated
        assert 0 <= one.num_accepted <= one.num_drafted


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 4),
    timestamps=st.booleans(),
    previous=st.booleans(),
)
def test_a_batch_says_what_the_library_says_of_each_row_alone(
    seed: int, rows: int, timestamps: bool, previous: bool
):
    teacher, student = planted(seed)
    inputs, prompts = features(rows, seed), make_prompts(rows, seed, timestamps, previous)
    found = answers(
        teacher, inputs, prompts, rules(timestamps), assistant=make_assistant(student, teacher)
    )
    expected = [
        by_transformers(teacher, inputs[row : row + 1], prompt, timestamps)
        for row, prompt in enumerate(prompts)
    ]
    assert tokens_of(found) == expected


def test_rows_that_end_at_different_steps_leave_the_batch_without_a_trace():
    teacher, student = planted(5)
    inputs = features(12, 5)
    prompts = make_prompts(12, 5, timestamps=False, previous=True)
    together = answers(
        teacher, inputs, prompts, rules(), assistant=make_assistant(student, teacher)
    )
    alone = [
        answers(teacher, inputs[row : row + 1], [prompt], rules())[0]
        for row, prompt in enumerate(prompts)
    ]
    assert tokens_of(together) == tokens_of(alone)
    assert len({len(answer.tokens) for answer in together}) > 2


@pytest.mark.parametrize("draft_length", [None, 1, 7, 16])
def test_the_last_position_of_448_is_used_and_no_more(draft_length: int | None):
    teacher, student = planted(0, positions=448)
    never_ending = Rules(end=END, first_timestamp=FIRST_TIMESTAMP, suppressed=frozenset({END}))
    inputs, prompts = features(2, 1), make_prompts(2, 3, timestamps=False, previous=True)
    plain = answers(teacher, inputs, prompts, never_ending)
    drafted = answers(
        teacher, inputs, prompts, never_ending,
        assistant=make_assistant(student, teacher), draft_length=draft_length,
    )  # fmt: skip
    assert tokens_of(drafted) == tokens_of(plain)
    assert [len(a.tokens) + len(p.tokens) for a, p in zip(plain, prompts, strict=True)] == [448] * 2
    assert all(answer.truncated for answer in drafted)


def test_a_prompt_that_fills_all_positions_is_refused():
    teacher, _ = planted(0)
    with pytest.raises(ValueError, match="a prompt of 40 tokens leaves no room in 40 positions"):
        answers(teacher, features(1, 0), [Prompt(tokens=(START,) * 40)], rules())


def test_a_teacher_that_assists_itself_is_always_right_and_takes_few_steps():
    teacher, _ = planted(3)
    never_ending = Rules(end=END, first_timestamp=FIRST_TIMESTAMP, suppressed=frozenset({END}))
    found = answers(
        teacher, features(3, 3), make_prompts(3, 3, timestamps=False, previous=False),
        never_ending, assistant=make_assistant(teacher, teacher), draft_length=4,
    )  # fmt: skip
    for answer in found:
        assert answer.num_accepted >= answer.num_drafted - 4  # the last draft runs past the room
        assert answer.num_steps <= 1 + -(-(len(answer.tokens) - 1) // 5)


def test_drafts_grow_while_they_are_accepted_and_stop_where_they_never_are():
    teacher = tiny_model(1, layers=12, positions=120)
    for layer in teacher.model.decoder.layers[1:]:  # layers that change nothing
        for module in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
            module.weight.data.zero_()
            module.bias.data.zero_()
    agreeing = make_student(teacher, decoder_layers=1).eval()
    agreeing.model.decoder.layers[0] = teacher.model.decoder.layers[0]
    never_ending = Rules(end=END, first_timestamp=FIRST_TIMESTAMP, suppressed=frozenset({END}))
    inputs, prompts = features(1, 1), make_prompts(1, 1, timestamps=False, previous=False)
    steps = {}
    for kind, student in (("agreeing", agreeing), ("stranger", tiny_model(77, positions=120))):
        (answer,) = answers(
            teacher, inputs, prompts, never_ending, assistant=make_assistant(student, teacher)
        )
        steps[kind] = answer
    assert steps["agreeing"].num_accepted > 0.9 * steps["agreeing"].num_drafted
    assert steps["agreeing"].num_steps < 0.4 * len(steps["agreeing"].tokens)
    assert steps["stranger"].num_drafted < len(steps["stranger"].tokens)


def test_sampling_draws_the_same_tokens_again_from_the_same_seed():
    teacher, student = planted(2)
    inputs, prompts = features(3, 2), make_prompts(3, 2, timestamps=True, previous=False)
    first, again, other = (
        answers(teacher, inputs, prompts, rules(True), temperature=1.0, seed=seed)
        for seed in (1, 1, 2)
    )
    assert tokens_of(first) == tokens_of(again) != tokens_of(other)


def test_the_probability_of_no_speech_is_the_models_own_at_the_start():
    teacher, _ = planted(4)
    inputs, prompts = features(2, 4), make_prompts(2, 4, timestamps=False, previous=True)
    with torch.inference_mode():
        encoded = teacher.model.encoder(inputs).last_hidden_state
        found = decode(
            Decoder(teacher.model.decoder, teacher.proj_out), encoded, prompts, rules(),
            Limits(), no_speech=7,
        )  # fmt: skip
        for row, (answer, prompt) in enumerate(zip(found, prompts, strict=True)):
            logits = teacher(
                inputs[row : row + 1], decoder_input_ids=torch.tensor([prompt.tokens])
            ).logits[0, prompt.start]
            assert answer.no_speech_prob == pytest.approx(float(logits.softmax(-1)[7]), abs=1e-5)


def test_only_the_decoder_of_a_student_with_the_teachers_encoder_is_loaded(
    teacher: WhisperForConditionalGeneration, tmp_path: Path
):
    make_student(teacher, decoder_layers=1).save_pretrained(tmp_path / "student")
    assistant = load_assistant(str(tmp_path / "student"), teacher)
    assert assistant.encoder is None
    assert assistant.decoder.num_layers == 1
    other = make_student(teacher, decoder_layers=1)
    other.model.encoder.conv1.weight.data += 0.01
    other.save_pretrained(tmp_path / "other")
    assert load_assistant(str(tmp_path / "other"), teacher).encoder is not None


def test_a_students_decoder_loaded_alone_drafts_like_the_whole_student(
    teacher: WhisperForConditionalGeneration, tmp_path: Path
):
    student = make_student(teacher, decoder_layers=2).eval()
    student.save_pretrained(tmp_path / "student")
    alone = load_assistant(str(tmp_path / "student"), teacher).decoder
    whole = make_assistant(student, teacher).decoder
    encoded = torch.randn(1, 20, teacher.config.d_model)
    tokens = torch.tensor([[641, 642, 5]])
    outputs = [d.logits(d.step(tokens, d.begin(encoded))) for d in (alone, whole)]
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("vocab_size", 91, "it has 91 tokens, the model 90"),
        ("num_mel_bins", 128, "it has 128 mel bands, the model 8"),
        ("decoder_start_token_id", 5, "it has 5 as the start token, the model 31"),
    ],
)
def test_an_assistant_of_another_kind_is_refused(key: str, value: int, message: str):
    teacher, student = planted(0)
    setattr(student.config, key, value)
    with pytest.raises(ValueError, match=message):
        check_match("student", student.config, teacher.config)


def test_real_speech_is_written_with_the_same_tokens():
    model, manifest = TEACHER, SPEECH / "en_kathleen" / "manifest.jsonl"
    if not model.is_dir() or not manifest.is_file():
        pytest.skip(ABSENT)
    teacher, processor = load_model(str(model)).eval(), load_processor(str(model))
    student = make_student(teacher, decoder_layers=2).eval()
    lines = [json.loads(line) for line in manifest.read_text().splitlines()[:3]]
    audio = [soundfile.read(manifest.parent / line["audio_filepath"])[0] for line in lines]
    inputs = processor.feature_extractor(
        audio, sampling_rate=16_000, return_tensors="pt"
    ).input_features
    config: Any = teacher.generation_config
    rule = Rules(
        end=config.eos_token_id,
        first_timestamp=config.no_timestamps_token_id + 1,
        suppressed=frozenset(config.suppress_tokens),
        suppressed_first=frozenset(config.begin_suppress_tokens),
    )
    prompt = Prompt(tokens=(config.decoder_start_token_id, config.no_timestamps_token_id))
    assistant = make_assistant(student, teacher)
    assert assistant.encoder is None
    drafted = answers(teacher, inputs, [prompt] * 3, rule, assistant=assistant)
    expected = teacher.generate(inputs, num_beams=1, do_sample=False)
    for row, answer in enumerate(drafted):
        written = torch.as_tensor(expected)[row].tolist()
        written = [t for t in written if t not in prompt.tokens and t != config.eos_token_id]
        assert list(answer.tokens) == written
