"""OpenAI's own Whisper with the weights of a Hugging Face folder, to compare labels with.

For development only: openai-whisper is no dependency of a run.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.config import DecodingConfig

_NAMES = (
    (r"^model\.", ""),
    (r"layers", "blocks"),
    (r"fc1", "mlp.0"),
    (r"fc2", "mlp.2"),
    (r"final_layer_norm", "mlp_ln"),
    (r"\.self_attn\.q_proj", ".attn.query"),
    (r"\.self_attn\.k_proj", ".attn.key"),
    (r"\.self_attn\.v_proj", ".attn.value"),
    (r"\.self_attn_layer_norm", ".attn_ln"),
    (r"\.self_attn\.out_proj", ".attn.out"),
    (r"\.encoder_attn\.q_proj", ".cross_attn.query"),
    (r"\.encoder_attn\.k_proj", ".cross_attn.key"),
    (r"\.encoder_attn\.v_proj", ".cross_attn.value"),
    (r"\.encoder_attn_layer_norm", ".cross_attn_ln"),
    (r"\.encoder_attn\.out_proj", ".cross_attn.out"),
    (r"decoder\.layer_norm\.", "decoder.ln."),
    (r"encoder\.layer_norm\.", "encoder.ln_post."),
    (r"embed_tokens", "token_embedding"),
    (r"encoder\.embed_positions\.weight", "encoder.positional_embedding"),
    (r"decoder\.embed_positions\.weight", "decoder.positional_embedding"),
)
_VOCABULARIES = (51864, 51865, 51866)


def load_openai(name: str, revision: str) -> Any:
    """Return an openai-whisper model with the weights of a Hub id or folder, in float32.

    Raises:
        ImportError: openai-whisper, or something it needs, is not installed.
        ValueError: the model has a vocabulary of its own, which openai-whisper cannot have.
    """
    import torch
    import transformers
    import whisper  # pyright: ignore[reportMissingImports]
    from whisper.model import ModelDimensions, Whisper  # pyright: ignore[reportMissingImports]

    assert whisper
    source = transformers.WhisperForConditionalGeneration.from_pretrained(
        name, revision=revision, dtype=torch.float32
    )
    config = source.config
    if config.vocab_size not in _VOCABULARIES:
        raise ValueError(
            f"{name} has {config.vocab_size} tokens, and OpenAI's tokenizers {_VOCABULARIES}"
        )
    model = Whisper(
        ModelDimensions(
            n_mels=config.num_mel_bins,
            n_audio_ctx=config.max_source_positions,
            n_audio_state=config.d_model,
            n_audio_head=config.encoder_attention_heads,
            n_audio_layer=config.encoder_layers,
            n_vocab=config.vocab_size,
            n_text_ctx=config.max_target_positions,
            n_text_state=config.d_model,
            n_text_head=config.decoder_attention_heads,
            n_text_layer=config.decoder_layers,
        )
    )
    weights = {_renamed(key): value for key, value in source.state_dict().items()}
    weights.pop("proj_out.weight", None)
    missing, unknown = model.load_state_dict(weights, strict=False)
    assert not unknown, unknown
    assert all(key.endswith("mask") for key in missing), missing
    return model.eval()


def transcribe(
    name: str,
    revision: str,
    clips: Sequence[np.ndarray],
    languages: Sequence[str],
    decoding: DecodingConfig,
) -> list[str]:
    """Return what `whisper.transcribe` makes of each clip with the same limits.

    Raises:
        ImportError: openai-whisper, or something it needs, is not installed.
        ValueError: the model cannot be one of openai-whisper's.
    """
    model = load_openai(name, revision)
    return [
        model.transcribe(
            clip,
            language=language,
            temperature=decoding.temperatures,
            compression_ratio_threshold=decoding.compression_ratio_threshold,
            logprob_threshold=decoding.logprob_threshold,
            no_speech_threshold=decoding.no_speech_threshold,
            condition_on_previous_text=False,
            without_timestamps=not decoding.timestamps,
            sample_len=decoding.max_new_tokens,
            beam_size=decoding.num_beams if decoding.num_beams > 1 else None,
            fp16=False,
        )["text"].strip()
        for clip, language in zip(clips, languages, strict=True)
    ]


def _renamed(key: str) -> str:
    for pattern, name in _NAMES:
        key = re.sub(pattern, name, key)
    return key
