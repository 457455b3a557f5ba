"""A corpus of tones and a real, tiny Whisper that always says the same sentence."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers

from pipeline.config import (
    BlocksConfig,
    CorpusConfig,
    DecodingConfig,
    FilterConfig,
    PipelineConfig,
    TeacherConfig,
)
from pipeline.schema import EMBEDDED_FOLDER
from pipeline.teacher.conversion import CACHE_VARIABLE

SENTENCE = "the old house"
"""What the scripted teacher says, whatever it hears."""

WIDTH = 64
NOBODY = 65534


def write_teacher(folder: Path, sentence: str = SENTENCE) -> Path:
    """Write a Whisper whose decoder ignores the audio: its position embeddings spell a sentence.

    Its one decoder layer adds nothing, so the hidden state at a position is, almost, the embedding
    of the token that shall come next. Everything else is as in any Whisper.
    """
    tokenizer = transformers.WhisperTokenizer.from_pretrained(EMBEDDED_FOLDER / "teacher")
    generation = transformers.GenerationConfig.from_pretrained(EMBEDDED_FOLDER / "teacher")
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    config = transformers.WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=80,
        d_model=WIDTH,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=WIDTH,
        decoder_ffn_dim=WIDTH,
        max_target_positions=64,
        decoder_start_token_id=generation.decoder_start_token_id,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    torch.manual_seed(0)
    model: Any = transformers.WhisperForConditionalGeneration(config)
    spoken = [
        tokenizer.convert_tokens_to_ids("<|0.00|>"),
        *tokenizer.encode(f" {sentence}", add_special_tokens=False),
        tokenizer.convert_tokens_to_ids("<|1.00|>"),
        end,
    ]
    decoder = model.model.decoder
    with torch.no_grad():
        vectors = torch.randn(len(tokenizer), WIDTH)
        vectors -= vectors.mean(dim=1, keepdim=True)
        decoder.embed_tokens.weight.copy_(vectors / vectors.norm(dim=1, keepdim=True))
        for layer in decoder.layers:
            for part in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
                part.weight.zero_()
                part.bias.zero_()
        decoder.embed_positions.weight.zero_()
        for position, token in enumerate(spoken, start=2):  # after start, language and task
            decoder.embed_positions.weight[position] = 20 * decoder.embed_tokens.weight[token]
    model.generation_config = generation
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _conversions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep converted teachers out of the user's cache; worker processes inherit this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher"))


def write_tone(path: Path, seconds: float, *, hertz: int = 220, sample_rate: int = 16_000) -> Path:
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    soundfile.write(path, 0.1 * np.sin(2 * np.pi * hertz * time), sample_rate)
    return path


@pytest.fixture
def without_privileges() -> Iterator[Path]:
    """Be somebody to whom file modes apply, also where the tests run as root; yield a folder."""
    folder = Path(tempfile.mkdtemp(prefix="without-privileges-"))
    was_root = os.geteuid() == 0
    if was_root:
        os.chown(folder, NOBODY, -1)
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if was_root:
            os.seteuid(0)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o700)
        shutil.rmtree(folder)


Corpus = Callable[..., CorpusConfig]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Write a manifest of lines (dicts, or text as it is) and return its configuration."""

    def make(*lines: dict[str, Any] | str, **fields: Any) -> CorpusConfig:
        split = fields.get("split", "train")
        path = tmp_path / f"{split}.jsonl"
        text = "".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines)
        path.write_text(text, encoding="utf-8")
        fields = {"name": "mine", "kind": "manifest", "licence": "cc0-1.0", **fields}
        return CorpusConfig(path=str(path), **fields)

    return make


@pytest.fixture
def tones(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Write recordings of 1 s, 1.5 s, ... and return their manifest lines."""

    def make(count: int, text: str = SENTENCE) -> list[dict[str, Any]]:
        lines = []
        for i in range(count):
            write_tone(tmp_path / f"tone{i}.wav", 1 + i / 2, hertz=200 + 20 * i)
            lines.append({"audio_filepath": f"tone{i}.wav", "text": text})
        return lines

    return make


@pytest.fixture
def configure(tmp_path: Path, teacher_folder: Path) -> Callable[..., PipelineConfig]:
    """Return a configuration for corpora with the scripted teacher and small blocks."""

    def make(*corpora: CorpusConfig, **fields: Any) -> PipelineConfig:
        settings: dict[str, Any] = {
            "output": str(tmp_path / "out"),
            "teacher": TeacherConfig(
                model=str(teacher_folder), device="cpu", batch_size=4, canary=False
            ),
            "decoding": DecodingConfig(max_new_tokens=20),
            "filter": FilterConfig(),
            "blocks": BlocksConfig(minutes=0.06),
            "beam": {"direct_num_workers": 1},
            **fields,
        }
        return PipelineConfig(corpora=list(corpora), **settings)

    return make
