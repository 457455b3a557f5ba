"""The embedded teacher before training: Whisper's architecture and tokenizer, on a small scale.

    python -m pipeline.embedded.architecture blank FOLDER          the untrained model
    python -m pipeline.embedded.architecture half TRAINED FOLDER   the trained one, in float16

The tokenizer is Whisper's (byte-level BPE, its special tokens for all languages and its 1,501
timestamps, found by name) with merges learned from the embedded grammar; only the merge table is
small. Four encoder and four decoder layers of width 192 hold five million weights, under 12 MB in
float16.
"""

import json
import sys

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AddedToken,
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from pipeline.embedded.text import sentences

NUM_TEXT_TOKENS = 640
NUM_LANGUAGES = 99
"""Cantonese, the hundredth, came with large-v3 and its 128 mels."""
NUM_TIMESTAMPS = 1501
"""0.00 to 30.00 s in steps of 0.02 s."""


def make_tokenizer(seed: int = 0) -> WhisperTokenizer:
    """Learn the merges from the grammar and add Whisper's tokens in Whisper's order."""
    learner = ByteLevelBPETokenizer()
    learner.train_from_iterator(
        sentences(20_000, seed, 3, 28),
        vocab_size=NUM_TEXT_TOKENS,
        min_frequency=2,
        show_progress=False,
    )
    state = json.loads(learner.to_str())["model"]
    special = ["<|endoftext|>", "<|startoftranscript|>"]
    special += [f"<|{code}|>" for code in list(LANGUAGES)[:NUM_LANGUAGES]]
    special += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"]
    special += ["<|nospeech|>", "<|notimestamps|>"]
    tokenizer = WhisperTokenizer(
        vocab=state["vocab"],
        merges=[tuple(m) for m in state["merges"]],
        pad_token="<|endoftext|>",
        extra_special_tokens=special,
    )
    timestamps = [f"<|{i * 0.02:.2f}|>" for i in range(NUM_TIMESTAMPS)]
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in timestamps])
    return tokenizer


def make_model(tokenizer: WhisperTokenizer, seed: int = 0) -> WhisperForConditionalGeneration:
    """Build the untrained model with its generation settings."""
    ids = {t: i for t, i in tokenizer.get_vocab().items() if t.startswith("<|")}
    start, end = ids["<|startoftranscript|>"], ids["<|endoftext|>"]
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=len(tokenizer),
            num_mel_bins=80,
            d_model=192,
            encoder_layers=4,
            decoder_layers=4,
            encoder_attention_heads=3,
            decoder_attention_heads=6,
            encoder_ffn_dim=768,
            decoder_ffn_dim=768,
            decoder_start_token_id=start,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
            init_std=0.05,
            suppress_tokens=None,
            begin_suppress_tokens=None,
        )
    )
    for convolution in (model.model.encoder.conv1, model.model.encoder.conv2):
        torch.nn.init.kaiming_normal_(convolution.weight)  # as loud as the positions added to it
    languages = {f"<|{code}|>": ids[f"<|{code}|>"] for code in list(LANGUAGES)[:NUM_LANGUAGES]}
    model.generation_config = GenerationConfig(
        decoder_start_token_id=start,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        is_multilingual=True,
        lang_to_id=languages,
        task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        prev_sot_token_id=ids["<|startofprev|>"],
        max_initial_timestamp_index=50,
        suppress_tokens=[],
        begin_suppress_tokens=[],
        max_length=model.config.max_target_positions,
        return_timestamps=False,
    )
    return model


def save_blank(folder: str) -> None:
    """Write the untrained teacher as `from_pretrained` reads it."""
    tokenizer = make_tokenizer()
    make_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)


def save_half(trained: str, folder: str) -> None:
    """Write a trained teacher with its weights in float16, half the size."""
    model = WhisperForConditionalGeneration.from_pretrained(trained, dtype=torch.float16)
    model.generation_config._from_model_config = False  # else a reload forgets the settings
    model.save_pretrained(folder)
    WhisperTokenizer.from_pretrained(trained).save_pretrained(folder)
    WhisperFeatureExtractor.from_pretrained(trained).save_pretrained(folder)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["blank", target]:
            save_blank(target)
        case ["half", source, target]:
            save_half(source, target)
        case _:
            sys.exit(__doc__)
