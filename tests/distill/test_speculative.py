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

from distill.decoder import Decoder, kept_places
from distill.decoding import Answer, Limits, Prompt, decode
from distill.evaluate_hearing import Loaded
from distill.longform import Options, sequential
from distill.longform_chunked import chunked
from distill.recognizers import load_recognizer
from distill.rules import Rules
from distill.speculative import Assistant, check_match, load_assistant, make_assistant
from distill.student import load_model, load_processor, make_student
from distill.transcribe import run
from distill.transcribe_config import LongformConfig
from pipeline.audio import load_audio
from pipeline.schema import EMBEDDED_FOLDER
from tests.shared_data import ABSENT, SPEECH, TEACHER

VOCABULARY, END, START, PREVIOUS, FIRST_TIMESTAMP = 90, 30, 31, 35, 39
NO_SPEECH = 7


def tiny_model(
    seed: int, layers: int = 2, positions: int = 40, std: float = 0.3, width: int = 16
) -> Any:
    """A Whisper of random weights that writes ends and timestamps now and then."""
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=VOCABULARY, d_model=width, encoder_layers=1, decoder_layers=layers,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=32, max_source_positions=12, max_target_positions=positions,
        num_mel_bins=8, init_std=std, eos_token_id=END, pad_token_id=END, bos_token_id=END,
        decoder_start_token_id=START, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model: Any = WhisperForConditionalGeneration(config).eval()
    # random weights write timestamps only, and never end: help text and the end
    model.model.decoder.layer_norm.bias.data[0] = 1.0
    weight = model.model.decoder.embed_tokens.weight.data
    weight[:END, 0] += 1.5
    weight[END, 0] += 2.5
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
        Limits(**options), no_speech=NO_SPEECH, assistant=assistant, assistant_encoded=own,
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
    kind=st.sampled_from(["planted", "stranger", "itself", "deeper", "wider", "shorter"]),
)
def test_an_assistant_never_changes_a_token(
    seed: int, rows: int, timestamps: bool, previous: bool, draft_length: int | None, kind: str
):
    teacher, student = planted(seed)
    assistant = {
        "planted": student,
        "stranger": tiny_model(seed + 1),
        "itself": teacher,
        "deeper": tiny_model(seed + 1, layers=5),
        "wider": tiny_model(seed + 1, width=24),
        "shorter": tiny_model(seed + 1, positions=24),  # it has no positions for the whole text
    }[kind]
    inputs, prompts = features(rows, seed), make_prompts(rows, seed, timestamps, previous)
    plain = answers(teacher, inputs, prompts, rules(timestamps))
    drafted = answers(
        teacher, inputs, prompts, rules(timestamps),
        assistant=make_assistant(assistant, teacher), draft_length=draft_length,
    )  # fmt: skip
    assert tokens_of(drafted) == tokens_of(plain)
    for one, other in zip(drafted, plain, strict=True):
        assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=1e-4)
        assert one.no_speech_prob == pytest.approx(other.no_speech_prob, abs=1e-6)
        assert one.truncated == other.truncated
        assert 0 <= one.num_accepted <= one.num_drafted
        assert one.num_steps <= other.num_steps


def test_such_models_and_inputs_have_in_them_what_could_go_wrong():
    found: list[Answer] = []
    for seed in range(12):
        teacher, student = planted(seed)
        inputs = features(4, seed)
        prompts = make_prompts(4, seed, timestamps=True, previous=True)
        assistant = make_assistant(student, teacher)
        found += answers(teacher, inputs, prompts, rules(True), assistant=assistant, draft_length=5)
    rejected = [a for a in found if a.num_accepted < a.num_drafted]
    with_times = [a for a in rejected if sum(token >= FIRST_TIMESTAMP for token in a.tokens) >= 4]
    assert len(with_times) > 5
    for some in (found, rejected, with_times):
        assert {a.truncated for a in some} == {True, False}
        assert any(a.num_accepted > 0 for a in some)
    assert len({len(a.tokens) for a in found}) > 10


@torch.inference_mode()
def next_token(
    model: Any, inputs: torch.Tensor, written: list[int], begin: int, rule: Rules
) -> int:
    """What the library's own model, without any cache, finds likeliest behind a text."""
    tokens = torch.tensor([written])
    logits = model(inputs, decoder_input_ids=tokens).logits[:, -1:]
    room = torch.nn.functional.pad(tokens, (0, 1))
    index = torch.tensor([[len(written)]])
    return int(rule.apply(logits, room, torch.tensor([begin]), index).argmax())


@pytest.mark.parametrize(
    ("seed", "timestamps", "rows"), [(0, False, 3), (3, False, 1), (2, True, 3), (8, True, 1)]
)
def test_what_is_drafted_is_what_the_assistant_would_write_behind_the_teachers_text(
    seed: int, timestamps: bool, rows: int
):
    draft_length, room = 3, 40
    teacher, student = planted(seed)
    inputs, rule = features(rows, seed), rules(timestamps)
    prompts = make_prompts(rows, seed, timestamps, previous=True)
    found = answers(
        teacher, inputs, prompts, rule,
        assistant=make_assistant(student, teacher), draft_length=draft_length,
    )  # fmt: skip
    texts = [[*a.tokens] if a.truncated else [*a.tokens, END] for a in found]
    now = {row: 1 for row, text in enumerate(texts) if len(text) > 1}
    steps, drafted, accepted = [1] * rows, [0] * rows, [0] * rows
    while now:
        shortest = min(len(prompts[row].tokens) + count for row, count in now.items())
        num = min(draft_length, room - shortest - 1)
        for row, count in list(now.items()):
            wanted = texts[row][count:]
            written = [*prompts[row].tokens, *texts[row][:count]]
            kept = 0
            while kept < min(num, len(wanted)):
                begin = len(prompts[row].tokens)
                token = next_token(student, inputs[row : row + 1], written, begin, rule)
                if token != wanted[kept]:
                    break
                written.append(token)
                kept += 1
            steps[row] += 1
            drafted[row] += num
            accepted[row] += kept
            now[row] += kept + 1
            if now[row] >= len(texts[row]):
                del now[row]
    assert [a.num_steps for a in found] == steps
    assert [a.num_drafted for a in found] == drafted
    assert [a.num_accepted for a in found] == accepted
    assert 0 < sum(accepted) < sum(drafted)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_no_row_is_longer_than_was_asked_for_though_drafts_are(most: int):
    teacher, _ = planted(3)
    never_ending = Rules(end=END, first_timestamp=FIRST_TIMESTAMP, suppressed=frozenset({END}))
    prompts = make_prompts(3, 3, timestamps=False, previous=True)
    for assistant in (None, make_assistant(teacher, teacher)):
        found = answers(
            teacher, features(3, 3), prompts, never_ending,
            assistant=assistant, draft_length=8, max_new_tokens=most,
        )  # fmt: skip
        assert [len(answer.tokens) for answer in found] == [most] * 3
        assert all(answer.truncated for answer in found)


def test_an_assistant_stands_aside_where_tokens_are_drawn():
    teacher, student = planted(2)
    inputs, prompts = features(3, 2), make_prompts(3, 2, timestamps=True, previous=True)
    alone, beside = (
        answers(teacher, inputs, prompts, rules(True), temperature=0.4, assistant=assistant)
        for assistant in (None, make_assistant(student, teacher))
    )
    assert alone == beside
    assert not any(answer.num_drafted for answer in beside)


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


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_a_row_that_goes_on_keeps_its_place_or_takes_that_of_one_that_ended(going_on: list[bool]):
    places = kept_places(going_on)
    assert sorted(places) == [place for place, goes_on in enumerate(going_on) if goes_on]
    assert all(row == place or row >= len(places) for place, row in enumerate(places))


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


def test_what_a_row_draws_does_not_depend_on_the_rows_beside_it():
    teacher, _ = planted(2)
    inputs, prompts = features(4, 2), make_prompts(4, 2, timestamps=True, previous=True)
    together = answers(teacher, inputs, prompts, rules(True), temperature=1.0)
    for row, answer in enumerate(together):
        (alone,) = answers(
            teacher, inputs[row : row + 1], prompts[row : row + 1], rules(True), temperature=1.0
        )
        assert alone.tokens == answer.tokens


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


@pytest.mark.parametrize("mode", ["sequential", "chunked"])
def test_long_recordings_are_heard_alike_with_an_assistant(mode: str, tmp_path: Path):
    make_student(load_model("embedded"), decoder_layers=2).save_pretrained(tmp_path)
    longform = LongformConfig(condition_on_previous=True, temperatures=[0.0, 0.4])
    options = Options(longform=longform, language="en", timestamps=True)
    audio = [
        load_audio(EMBEDDED_FOLDER / "audio" / f"test-{name}.opus", 0.0, seconds)
        for name, seconds in (("000-en-us-f2", 33.0), ("001-en-gb-m3", 31.0))
    ]

    def hear(assistant: str | None) -> dict[int, Any]:
        model = load_recognizer("embedded", device="cpu", dtype="float32", assistant=assistant)
        if mode == "sequential":
            jobs = (sequential(Loaded(a), model.vocabulary, options) for a in audio)
        else:
            jobs = (chunked(Loaded(a), model.vocabulary, options, 15.0, 4) for a in audio)
        return dict(run(jobs, model, 4))

    alone, helped = hear(None), hear(str(tmp_path))
    for number in range(len(audio)):
        assert alone[number].text == helped[number].text != ""
        for a, b in zip(alone[number].segments, helped[number].segments, strict=True):
            assert (a.tokens, a.start, a.end) == (b.tokens, b.start, b.end)
        assert 0 < helped[number].num_accepted <= helped[number].num_drafted
        assert helped[number].num_steps < alone[number].num_steps


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
