"""The file is what whisper.cpp reads: by its layout, and by whisper.cpp itself."""

import copy
import dataclasses
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AddedToken, WhisperTokenizer
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from distill.evaluate_config import EvaluateConfig
from distill.evaluate_data import read_clips
from distill.export import ggml
from distill.export.config import ExportConfig
from distill.export.source import Source, load_source
from distill.export.verification import compare, listen
from pipeline.schema import EMBEDDED_FOLDER


def parse(path: Path) -> tuple[list[int], np.ndarray, list[bytes], dict[str, np.ndarray]]:
    """Read header, mel filters, tokens and weights by the layout, to the last byte."""
    content, place = path.read_bytes(), 0

    def ints(number: int) -> list[int]:
        nonlocal place
        found = struct.unpack_from(f"<{number}i", content, place)
        place += 4 * number
        return list(found)

    def take(size: int) -> bytes:
        nonlocal place
        place += size
        return content[place - size : place]

    magic, *header = ints(12)
    assert magic == 0x67676D6C
    shape = ints(2)
    filters = np.frombuffer(take(4 * shape[0] * shape[1]), "<f4").reshape(shape)
    tokens = [take(*ints(1)) for _ in range(*ints(1))]
    weights = {}
    while place < len(content):
        dims, length, kind = ints(3)
        shape = ints(dims)[::-1]
        name = take(length).decode()
        dtype = np.dtype("<f2" if kind else "<f4")
        weights[name] = np.frombuffer(take(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(
            shape
        )
    return header, filters, tokens, weights


def test_sizes_filters_tokens_and_weights_are_the_models(source: Source, tmp_path: Path):
    ggml.write(source, tmp_path / "g")
    header, filters, tokens, weights = parse(tmp_path / "g" / "ggml-model.bin")
    # vocabulary, audio: positions, width, heads, layers; text: the same; mels, float16
    assert header == [51865, 1500, 32, 2, 2, 448, 32, 2, 4, 80, 1]
    np.testing.assert_array_equal(
        filters, source.processor.feature_extractor.mel_filters.T.astype(np.float32)
    )
    assert len(tokens) == 50257
    text = "The river was cold, she said."
    ids = source.processor.tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(tokens[i] for i in ids).decode() == text
    state = source.model.model.state_dict()
    assert len(weights) == len(state)
    for theirs, ours in {
        "encoder.conv1.weight": "encoder.conv1.weight",
        "encoder.blocks.1.attn.query.bias": "encoder.layers.1.self_attn.q_proj.bias",
        "decoder.blocks.3.cross_attn.key.weight": "decoder.layers.3.encoder_attn.k_proj.weight",
        "decoder.blocks.0.cross_attn_ln.weight": "decoder.layers.0.encoder_attn_layer_norm.weight",
        "decoder.blocks.2.mlp.2.weight": "decoder.layers.2.fc2.weight",
        "decoder.positional_embedding": "decoder.embed_positions.weight",
    }.items():
        expected = state[ours].numpy().astype(weights[theirs].dtype)
        np.testing.assert_array_equal(weights[theirs], expected)
    assert weights["encoder.conv2.bias"].shape == (32, 1)
    assert {w.dtype.itemsize for n, w in weights.items() if n.endswith("bias")} == {4}


def test_tokens_stand_where_whisper_cpp_looks_for_them(source: Source):
    rows, ids = ggml._rows(source), source.processor.tokenizer.get_vocab()
    for number, name in WHISPER.items():
        assert rows[number] == ids[name], name
    assert rows[:3] == [0, 1, 2]
    assert rows[50256] is None
    assert rows[-1] == rows[50364] + 1500  # pyright: ignore[reportOptionalOperand]


def test_the_numbers_of_a_published_whisper_stay_as_they_are(source: Source):
    for languages, size in ((99, 51865), (100, 51866)):
        rows = ggml._rows(full_size(source, languages))
        assert rows == list(range(size))


WHISPER = {
    50257: "<|endoftext|>", 50258: "<|startoftranscript|>", 50259: "<|en|>", 50357: "<|su|>",
    50358: "<|translate|>", 50359: "<|transcribe|>", 50360: "<|startoflm|>",
    50361: "<|startofprev|>", 50362: "<|nospeech|>", 50363: "<|notimestamps|>",
}  # fmt: skip


def full_size(source: Source, num_languages: int) -> Source:
    """A source with as many tokens as OpenAI's vocabulary, most of them invented."""
    names = list(WHISPER.values())
    languages = [f"<|{code}|>" for code in list(LANGUAGES)[:num_languages]]
    special = [*names[:2], *languages, *names[4:]]
    tokenizer = WhisperTokenizer(
        vocab={f"token{i}": i for i in range(50257)},
        merges=[],
        pad_token="<|endoftext|>",
        extra_special_tokens=special,
    )
    times = [f"<|{i * 0.02:.2f}|>" for i in range(1501)]
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in times])
    processor = type(source.processor)(source.processor.feature_extractor, tokenizer)
    model: Any = type(source.model)(copy.deepcopy(source.model.config))
    model.config.vocab_size = len(tokenizer)
    model.generation_config.is_multilingual = True
    return dataclasses.replace(source, model=model, processor=processor)


def test_a_feed_forward_layer_of_unusual_width_is_refused(teacher, processor, tmp_path: Path):
    odd = Source(name="odd", model=teacher, processor=processor)
    with pytest.raises(ValueError, match="odd has encoder_ffn_dim 64; whisper.cpp knows models"):
        ggml.write(odd, tmp_path / "g")


def test_keys_make_up_for_heads_of_another_width(source: Source, tmp_path: Path):
    """whisper.cpp divides them by the fourth root of the width of the encoder's heads."""
    source.model.config.decoder_attention_heads *= 2
    try:
        ggml.write(source, tmp_path / "g")
    finally:
        source.model.config.decoder_attention_heads //= 2
    weights = parse(tmp_path / "g" / "ggml-model.bin")[3]
    state = source.model.model.state_dict()
    for part, by in (("cross_attn", 2**0.25), ("attn", 1.0)):
        ours = state[f"decoder.layers.1.{'encoder' if by > 1 else 'self'}_attn.k_proj.weight"]
        theirs = weights[f"decoder.blocks.1.{part}.key.weight"]
        np.testing.assert_array_equal(theirs, (ours * by).numpy().astype(np.float16))


def test_whisper_cpp_hears_what_the_source_hears(tmp_path: Path):
    pytest.importorskip("pywhispercpp")
    source = load_source("embedded")
    widths = source.model.config
    assert widths.decoder_attention_heads != widths.encoder_attention_heads
    ggml.write(source, tmp_path / "g")
    clips = read_clips(
        EvaluateConfig(models=["embedded"], data=[str(EMBEDDED_FOLDER / "test.jsonl")], output="")
    )[::24]
    expected = listen(source, clips, 8)
    found = compare(expected, ggml.transcriber(tmp_path / "g", source), 8)
    assert found.clips == 9
    assert found.identical >= ExportConfig(model="", output="").smallest_share("ggml"), (
        found.different
    )
