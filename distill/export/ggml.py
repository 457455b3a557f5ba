"""ggml, the one file that whisper.cpp reads: sizes, mel filters, tokens, weights in float16.

whisper.cpp knows special tokens by number, counted from a vocabulary of 51,864 (English only),
51,865 or 51,866 (large-v3). Tokens are therefore put where it looks for them, by name. For every
published Whisper that changes nothing; a model with fewer text tokens, such as the embedded one,
gets rows in between that are never chosen. Alignment heads are not part of the format: whisper.cpp
has lists of its own for the published models.
"""

import logging
import struct
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from distill.export.source import Source, Transcriber
from distill.longform import Window

NEEDS = ()
RUNTIME = "pywhispercpp"
FILE_NAME = "ggml-model.bin"

_MAGIC = 0x67676D6C
_END = {True: 50257, False: 50256}
"""Number of <|endoftext|> in a multilingual vocabulary and in an English one."""
_AFTER_LANGUAGES = ("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>")
_NUM_TIMESTAMPS = 1501
_FLOAT32, _FLOAT16 = 0, 1
_NEVER = 8.0
"""How much louder than the rows of languages a row is said no to; see `_embedding`."""

_LAYER = {
    "self_attn.q_proj": "attn.query",
    "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out",
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn.q_proj": "cross_attn.query",
    "encoder_attn.k_proj": "cross_attn.key",
    "encoder_attn.v_proj": "cross_attn.value",
    "encoder_attn.out_proj": "cross_attn.out",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "final_layer_norm": "mlp_ln",
}
_REST = {
    "encoder.conv1": "encoder.conv1",
    "encoder.conv2": "encoder.conv2",
    "encoder.embed_positions.weight": "encoder.positional_embedding",
    "encoder.layer_norm": "encoder.ln_post",
    "decoder.embed_positions.weight": "decoder.positional_embedding",
    "decoder.embed_tokens": "decoder.token_embedding",
    "decoder.layer_norm": "decoder.ln",
}


def write(source: Source, folder: Path) -> None:
    """Write `ggml-model.bin`.

    Raises:
        ValueError: the model has a form that whisper.cpp does not know, or a weight is too large.
    """
    source.check_float16()
    config: Any = source.model.config
    for part in ("encoder", "decoder"):
        width = getattr(config, f"{part}_ffn_dim")
        if width != 4 * config.d_model:
            raise ValueError(
                f"{source.name} has {part}_ffn_dim {width}; whisper.cpp knows models whose feed "
                f"forward layers are four times as wide as d_model ({config.d_model})"
            )
    rows = _rows(source)
    folder.mkdir(parents=True)
    with (folder / FILE_NAME).open("wb") as file:
        _write_ints(
            file, _MAGIC, len(rows), config.max_source_positions,
            config.d_model, config.encoder_attention_heads, config.encoder_layers,
            config.max_target_positions,
            config.d_model, config.decoder_attention_heads, config.decoder_layers,
            config.num_mel_bins, _FLOAT16,
        )  # fmt: skip
        filters = np.asarray(source.processor.feature_extractor.mel_filters).T
        _write_ints(file, *filters.shape)
        file.write(filters.astype("<f4").tobytes())
        _write_tokens(file, source, rows)
        for name, weight in source.model.model.state_dict().items():
            if name == "decoder.embed_tokens.weight":
                weight = _embedding(source, weight, rows)
            if name.endswith("encoder_attn.k_proj.weight"):
                weight = weight * _key_scale(config)
            _write_weight(file, _name(name), weight.float().numpy())


def _rows(source: Source) -> list[int | None]:
    """Return the model's token at each of whisper.cpp's numbers; None where it has none.

    Raises:
        ValueError: a special token is missing, or there are more text tokens than Whisper's.
    """
    ids = source.processor.tokenizer.get_vocab()
    vocabulary = source.vocabulary
    codes = list(LANGUAGES)
    if "<|yue|>" not in ids:
        codes.remove("yue")
    no_speech = "<|nospeech|>" if "<|nospeech|>" in ids else "<|nocaptions|>"
    names = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in codes)]
    names += [*_AFTER_LANGUAGES, no_speech, "<|notimestamps|>"]
    missing = [name for name in names if name not in ids]
    if missing:
        raise ValueError(
            f"{source.name} lacks {len(missing)} of the special tokens that whisper.cpp counts "
            f"on, such as {missing[0]}"
        )
    end = _END[vocabulary.multilingual]
    if vocabulary.end > end:
        raise ValueError(
            f"{source.name} has {vocabulary.end:,} text tokens; whisper.cpp takes up to {end:,}"
        )
    special = [ids[name] for name in names]
    times = [vocabulary.first_timestamp + number for number in range(_NUM_TIMESTAMPS)]
    if times[-1] >= source.model.config.vocab_size:
        raise ValueError(f"{source.name} has no timestamps, and whisper.cpp counts on them")
    between: list[int | None] = [None] * (end - vocabulary.end)
    return [*range(vocabulary.end), *between, *special, *times]


def _write_tokens(file: BufferedWriter, source: Source, rows: list[int | None]) -> None:
    """Write the text tokens as bytes; whisper.cpp names the special ones itself."""
    letters = {letter: byte for byte, letter in bytes_to_unicode().items()}
    pieces = source.processor.tokenizer.convert_ids_to_tokens(list(range(source.vocabulary.end)))
    texts = [bytes(letters[letter] for letter in piece) for piece in pieces]
    texts += [b""] * (_END[source.vocabulary.multilingual] - len(texts))
    _write_ints(file, len(texts))
    for text in texts:
        _write_ints(file, len(text))
        file.write(text)


def _embedding(source: Source, weight: torch.Tensor, rows: list[int | None]) -> torch.Tensor:
    """Return the token embedding, which is the output layer as well, in whisper.cpp's order.

    A row that stands for no token must lose against every other. The names of languages are never
    written in a text, so a trained model says no to them whatever it hears; a multiple of their
    mean says so more loudly.
    """
    languages = list(source.vocabulary.languages.values())
    never = _NEVER * weight[languages].mean(0)
    return torch.stack([never if row is None else weight[row] for row in rows])


def _key_scale(config: Any) -> float:
    """Return what makes up for how whisper.cpp scales the keys that the decoder listens with.

    It divides queries and keys by the fourth root of a head's width each, but takes the width of
    the encoder's heads for these keys. In every published Whisper the two widths are the same.
    """
    return (config.decoder_attention_heads / config.encoder_attention_heads) ** 0.25


def _name(name: str) -> str:
    """Return whisper.cpp's name of a weight."""
    part, kind, *inner = name.split(".")
    if kind == "layers":
        number, *middle, last = inner
        return f"{part}.blocks.{number}.{_LAYER['.'.join(middle)]}.{last}"
    if name in _REST:
        return _REST[name]
    stem, _, last = name.rpartition(".")
    return f"{_REST[stem]}.{last}"


def _write_weight(file: BufferedWriter, name: str, values: np.ndarray) -> None:
    """Write one tensor; the small ones and the positions stay in float32."""
    if name.endswith(("conv1.bias", "conv2.bias")):
        values = values[:, None]
        kind = _FLOAT32
    else:
        kind = _FLOAT32 if values.ndim < 2 or "positional" in name else _FLOAT16
    encoded = name.encode()
    _write_ints(file, values.ndim, len(encoded), kind, *reversed(values.shape))
    file.write(encoded)
    file.write(values.astype("<f4" if kind == _FLOAT32 else "<f2").tobytes())


def _write_ints(file: BufferedWriter, *values: int) -> None:
    file.write(struct.pack(f"<{len(values)}i", *values))


def transcriber(folder: Path, source: Source) -> Transcriber:
    """Return what whisper.cpp hears, greedily and without its fallback to higher temperatures.

    Its flash attention pads the sound to a multiple of 256 positions and listens to the padding
    too, which moves the logits of a good file fifteen times as far as float16 does; it stays off.

    Raises:
        ImportError: pywhispercpp is not installed.
    """
    from pywhispercpp.model import Model  # pyright: ignore[reportMissingImports]

    logging.getLogger("pywhispercpp").setLevel(logging.WARNING)
    settings: Any = source.model.generation_config
    model = Model(
        str(folder / FILE_NAME),
        redirect_whispercpp_logs_to=None,
        context_params={"use_gpu": False, "flash_attn": False},
        n_threads=torch.get_num_threads(),
        print_progress=False,
        no_timestamps=True,
        single_segment=True,
        temperature_inc=0.0,
        no_speech_thold=1.0,
        greedy={"best_of": 1},
        suppress_blank=bool(getattr(settings, "begin_suppress_tokens", None)),
        suppress_nst=bool(getattr(settings, "suppress_tokens", None)),
    )

    def hear(windows: list[Window]) -> list[str]:
        texts = []
        for window in windows:
            segments = model.transcribe(window.samples, language=window.language or "en")
            texts.append("".join(segment.text for segment in segments).strip())
        return texts

    return hear
