import dataclasses
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import WhisperTokenizer

from distill.losses import IGNORED
from distill.targets import (
    MAX_PROMPT_TOKENS,
    MAX_TARGET_TOKENS,
    Target,
    letter_tokens,
    make_target,
    spell,
    timestamp,
    with_wrong_tokens,
)
from pipeline.schema import ClipUtterance, Sample, Segment
from tests.distill.material import make_sample


def names(tokenizer: WhisperTokenizer, ids: tuple[int, ...]) -> list[str]:
    """Token names; "-" where there is no label."""
    return ["-" if i == IGNORED else str(tokenizer.convert_ids_to_tokens(i)) for i in ids]


def target(sample: Sample, tokenizer: WhisperTokenizer, **options) -> Target:
    found = make_target(sample, tokenizer, **options)
    assert found is not None
    assert len(found.labels) == len(found.decoder_input_ids) <= MAX_TARGET_TOKENS
    return found


def words(tokenizer: WhisperTokenizer, count: int) -> str:
    """A text of exactly so many tokens, with its leading space."""
    one = tokenizer(" the", add_special_tokens=False).input_ids
    assert len(one) == 1
    return " ".join(["the"] * count)


def test_a_plain_target_is_the_task_the_text_and_the_end(tokenizer: WhisperTokenizer):
    found = target(make_sample("the old house"), tokenizer)
    task = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    inputs, labels = names(tokenizer, found.decoder_input_ids), names(tokenizer, found.labels)
    assert inputs[:4] == task
    assert tokenizer.decode(found.decoder_input_ids[4:]) == " the old house"
    assert labels == [*inputs[1:3], "-", *inputs[4:], "<|endoftext|>"]


@pytest.mark.parametrize("multilingual", [True, False])
@pytest.mark.parametrize("text", ["the old house", ""])
def test_the_choice_of_no_timestamps_is_given_and_not_asked_for(
    tokenizer: WhisperTokenizer, text: str, multilingual: bool
):
    sample = make_sample(text, previous_pseudo_label="the river")
    found = target(sample, tokenizer, prompted=True, multilingual=multilingual)
    assert "<|notimestamps|>" in names(tokenizer, found.decoder_input_ids)
    assert "<|notimestamps|>" not in names(tokenizer, found.labels)


def test_a_label_that_was_written_without_timestamps_teaches_none(tokenizer: WhisperTokenizer):
    segments = (Segment(start=0.0, end=2.5, text="the old house"),)
    words = tokenizer(" the old house", add_special_tokens=False).input_ids
    start, end = map(tokenizer.convert_tokens_to_ids, ("<|0.00|>", "<|2.50|>"))
    plain = make_sample("the old house", 2.5, segments=segments, tokens=tuple(words))
    timed = dataclasses.replace(plain, tokens=(start, *words, end))
    without, with_times = (target(s, tokenizer, timestamps=True) for s in (plain, timed))
    assert "<|notimestamps|>" in names(tokenizer, without.decoder_input_ids)
    assert {"<|0.00|>", "<|2.50|>"} <= set(names(tokenizer, with_times.labels))


@pytest.mark.parametrize("field", ["pseudo_label", "reference"])
def test_a_label_is_the_teachers_or_the_corpus_text(tokenizer: WhisperTokenizer, field: str):
    sample = make_sample(reference="the river", pseudo_label="the old house")
    found = target(sample, tokenizer, use_reference=field == "reference")
    assert tokenizer.decode(found.decoder_input_ids[4:]).strip() == getattr(sample, field)


def letter_by_letter(tokenizer: WhisperTokenizer, text: str) -> tuple[int, ...]:
    """A spelling that no tokenizer would choose."""
    letters = ["Ġ" if letter == " " else letter for letter in f" {text}"]
    ids: Any = tokenizer.convert_tokens_to_ids(letters)
    assert tokenizer.decode(ids) == f" {text}"
    assert ids != tokenizer(f" {text}", add_special_tokens=False).input_ids
    return tuple(ids)


def test_the_teachers_text_is_taught_in_its_own_tokens(tokenizer: WhisperTokenizer):
    spelled = letter_by_letter(tokenizer, "the old house")
    sample = make_sample("the old house", tokens=spelled)
    assert target(sample, tokenizer).labels[3:-1] == spelled
    of_references = target(sample, tokenizer, use_reference=True)
    assert of_references.labels == target(make_sample("the old house"), tokenizer).labels


def test_pieces_between_timestamps_are_taught_in_the_teachers_own_tokens(
    tokenizer: WhisperTokenizer,
):
    first, second = (letter_by_letter(tokenizer, text) for text in ("the house", "a boat"))
    times = [tokenizer.convert_tokens_to_ids(timestamp(t)) for t in (0.0, 1.0, 1.0, 2.0)]
    sample = make_sample(
        "the house a boat",
        2.0,
        tokens=(times[0], *first, times[1], times[2], *second, times[3]),
        segments=(
            Segment(start=0.0, end=1.0, text="the house"),
            Segment(start=1.0, end=2.0, text="a boat"),
        ),
    )
    timed = target(sample, tokenizer, timestamps=True)
    assert timed.decoder_input_ids[3:] == sample.tokens
    assert target(sample, tokenizer).decoder_input_ids[4:] == first + second


@pytest.mark.parametrize("shift", [1, 10_000])
def test_tokens_of_another_text_or_vocabulary_are_not_taught(
    tokenizer: WhisperTokenizer, shift: int
):
    foreign = tuple(token + shift for token in letter_by_letter(tokenizer, "the old house"))
    found = target(make_sample("the old house", tokens=foreign), tokenizer)
    assert found == target(make_sample("the old house"), tokenizer)


def test_special_tokens_are_found_by_name_in_other_generations(tokenizer: WhisperTokenizer):
    plain = target(make_sample(), tokenizer).decoder_input_ids
    ids = [tokenizer.convert_tokens_to_ids(n) for n in ("<|startoftranscript|>", "<|en|>")]
    assert list(plain[:2]) == ids
    assert ids[0] != 50258  # where Whisper v1 to v3 have it


def test_the_language_is_the_clips(tokenizer: WhisperTokenizer):
    found = target(make_sample(language="de"), tokenizer)
    assert names(tokenizer, found.decoder_input_ids)[1] == "<|de|>"


def test_an_unknown_language_is_refused_not_taught_as_another_token(tokenizer: WhisperTokenizer):
    with pytest.raises(ValueError, match=re.escape("no token <|tlh|>")):
        make_target(make_sample(language="tlh"), tokenizer)


def test_older_tokenizers_call_no_speech_no_captions(tokenizer: WhisperTokenizer):
    class Older:
        """The tokenizer as Whisper v1 and v2 have it on the Hub."""

        def __call__(self, text: str, **options):
            return tokenizer(text, **options)

        def convert_tokens_to_ids(self, name: str):
            renamed = {"<|nospeech|>": "<|xx|>", "<|nocaptions|>": "<|nospeech|>"}
            return tokenizer.convert_tokens_to_ids(renamed.get(name, name))

        def convert_ids_to_tokens(self, token: int):
            found = tokenizer.convert_ids_to_tokens(token)
            return "<|nocaptions|>" if found == "<|nospeech|>" else found

    found = make_target(make_sample(""), Older())  # pyright: ignore[reportArgumentType]
    assert found is not None
    assert names(tokenizer, found.labels)[0] == "<|nospeech|>"


def test_timestamps_surround_each_segment_and_replace_notimestamps(tokenizer: WhisperTokenizer):
    segments = (
        Segment(start=0.0, end=1.2, text="the old house"),
        Segment(start=1.5, end=2.0, text="was sold"),
    )
    sample = make_sample("the old house was sold", 2.5, segments=segments)
    inputs = names(tokenizer, target(sample, tokenizer, timestamps=True).decoder_input_ids)
    assert [n for n in inputs if re.fullmatch(r"<\|[\d.]+\|>", n)] == [
        "<|0.00|>",
        "<|1.20|>",
        "<|1.50|>",
        "<|2.00|>",
    ]
    assert "<|notimestamps|>" not in inputs
    assert inputs[3] == "<|0.00|>"


def test_timestamps_of_references_are_those_of_the_packed_utterances(tokenizer: WhisperTokenizer):
    utterances = (
        ClipUtterance(id="a", start=0.5, duration=1.0, reference="the house"),
        ClipUtterance(id="b", start=2.0, duration=1.0, reference=" "),
        ClipUtterance(id="c", start=3.013, duration=0.5, reference="the river"),
    )
    sample = make_sample("the house the river", 4.0, utterances=utterances)
    found = target(sample, tokenizer, use_reference=True, timestamps=True)
    stamps = [n for n in names(tokenizer, found.decoder_input_ids) if "." in n]
    assert stamps == ["<|0.50|>", "<|1.50|>", "<|3.02|>", "<|3.52|>"]


def test_a_segment_without_text_is_not_taught(tokenizer: WhisperTokenizer):
    segments = (Segment(start=0.0, end=1, text=" "), Segment(start=1, end=2.0, text="the house"))
    found = target(make_sample("the house", 2, segments=segments), tokenizer, timestamps=True)
    assert names(tokenizer, found.decoder_input_ids)[3] == "<|1.00|>"


@given(seconds=st.floats(-1, 40, allow_nan=False))
def test_timestamps_are_on_the_grid_and_in_the_vocabulary(
    tokenizer: WhisperTokenizer, seconds: float
):
    name = timestamp(seconds)
    found = tokenizer.convert_tokens_to_ids(name)
    assert tokenizer.convert_ids_to_tokens(found) == name
    value = float(name[2:-2])
    assert 0 <= value <= 30
    assert round(value * 100) % 2 == 0
    assert abs(value - min(max(seconds, 0), 30)) <= 0.01 + 1e-9


def test_the_prompt_is_masked_up_to_and_including_the_start_token(tokenizer: WhisperTokenizer):
    sample = make_sample(previous_pseudo_label="they came home late")
    plain, found = target(sample, tokenizer), target(sample, tokenizer, prompted=True)
    inputs, labels = names(tokenizer, found.decoder_input_ids), names(tokenizer, found.labels)
    start = inputs.index("<|startoftranscript|>")
    assert inputs[0] == "<|startofprev|>"
    assert tokenizer.decode(found.decoder_input_ids[1:start]) == " they came home late"
    assert labels[:start] == ["-"] * start
    assert labels[start:] == names(tokenizer, plain.labels)
    assert found.decoder_input_ids[start:] == plain.decoder_input_ids
    assert "<|startoftranscript|>" not in labels


def test_start_of_previous_appears_once(tokenizer: WhisperTokenizer):
    sample = make_sample(previous_pseudo_label=words(tokenizer, 400))
    inputs = names(tokenizer, target(sample, tokenizer, prompted=True).decoder_input_ids)
    assert inputs.count("<|startofprev|>") == 1
    assert inputs.index("<|startoftranscript|>") == MAX_PROMPT_TOKENS + 1 == 224


def test_a_prompt_keeps_its_end(tokenizer: WhisperTokenizer):
    sample = make_sample(previous_pseudo_label=words(tokenizer, 300) + " river")
    found = target(sample, tokenizer, prompted=True)
    assert tokenizer.decode(found.decoder_input_ids[:224]).endswith("the river")


@pytest.mark.parametrize("previous", ["", "  "])
def test_without_previous_text_there_is_no_prompt(tokenizer: WhisperTokenizer, previous: str):
    sample = make_sample(previous_pseudo_label=previous)
    assert target(sample, tokenizer, prompted=True) == target(sample, tokenizer)


def test_a_target_may_fill_all_448_positions(tokenizer: WhisperTokenizer):
    fits, too_long = (make_sample(words(tokenizer, n)) for n in (444, 445))
    assert len(target(fits, tokenizer).labels) == 448
    assert make_target(too_long, tokenizer) is None


@pytest.mark.parametrize("count", [220, 300, 441, 442, 443, 444])
def test_a_prompt_gives_way_to_the_text(tokenizer: WhisperTokenizer, count: int):
    previous = words(tokenizer, 400)
    sample = make_sample(words(tokenizer, count), previous_pseudo_label=previous)
    found = target(sample, tokenizer, prompted=True)
    plain = target(sample, tokenizer)
    prompt = found.decoder_input_ids[: -len(plain.labels)]
    assert found.decoder_input_ids[len(prompt) :] == plain.decoder_input_ids
    assert len(prompt) == (min(224, 444 - count) if count < 443 else 0)


@pytest.mark.parametrize("timestamps", [False, True])
def test_a_clip_without_text_teaches_nospeech_and_silence(
    tokenizer: WhisperTokenizer, timestamps: bool
):
    found = target(make_sample(""), tokenizer, timestamps=timestamps)
    task = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    assert names(tokenizer, found.decoder_input_ids) == task
    assert names(tokenizer, found.labels) == ["<|nospeech|>", "-", "-", "<|endoftext|>"]


def test_nospeech_stands_after_the_start_token_also_with_a_prompt(tokenizer: WhisperTokenizer):
    found = target(make_sample("", previous_pseudo_label="they came"), tokenizer, prompted=True)
    inputs, labels = names(tokenizer, found.decoder_input_ids), names(tokenizer, found.labels)
    start = inputs.index("<|startoftranscript|>")
    assert labels[: start + 1] == ["-"] * start + ["<|nospeech|>"]


def test_a_text_is_spelled_in_small_letters_without_punctuation(tokenizer: WhisperTokenizer):
    letters = tokenizer.decode([letter_tokens(tokenizer)[i] for i in spell("It's Tea, ö?")])
    assert letters == "it's tea "


@pytest.mark.parametrize("timestamps", [False, True])
def test_wrong_tokens_replace_given_text_and_neither_labels_nor_special_tokens(
    tokenizer, timestamps
):
    whole = target(make_sample(words(tokenizer, 200)), tokenizer, timestamps=timestamps)
    num_text_tokens = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    found = with_wrong_tokens(whole, 0.3, num_text_tokens, random.Random(0))
    assert found.labels == whole.labels
    pairs = list(zip(whole.decoder_input_ids, found.decoder_input_ids, strict=True))
    assert all(a == b for a, b in pairs if a >= num_text_tokens)
    text = [a == b for a, b in pairs if a < num_text_tokens]
    assert 0.6 < sum(text) / len(text) < 0.8
    assert with_wrong_tokens(whole, 0.0, num_text_tokens, random.Random(0)) == whole


def test_an_english_only_model_is_told_neither_language_nor_task(tokenizer: WhisperTokenizer):
    found = target(make_sample("the old house"), tokenizer, multilingual=False)
    inputs, labels = names(tokenizer, found.decoder_input_ids), names(tokenizer, found.labels)
    assert inputs[:2] == ["<|startoftranscript|>", "<|notimestamps|>"]
    assert labels == ["-", *inputs[2:], "<|endoftext|>"]


def test_silence_for_an_english_only_model_is_nospeech_and_the_end(tokenizer: WhisperTokenizer):
    found = target(make_sample(""), tokenizer, multilingual=False)
    assert names(tokenizer, found.labels) == ["<|nospeech|>", "<|endoftext|>"]


def test_a_foreign_clip_is_refused_by_an_english_only_model(tokenizer: WhisperTokenizer):
    with pytest.raises(ValueError, match="the student knows English only"):
        make_target(make_sample(language="de"), tokenizer, multilingual=False)
