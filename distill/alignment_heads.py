"""Which attention heads of a model follow the speech, found by looking at them.

A student's layers are copies of its teacher's at the start, and so are the heads that word times
are read from; training moves them. Each cross-attention head is shown clips with their text. Of a
head that follows the speech, nearly all attention of a token lies where the cheapest monotone path
through its own map puts that token; of one that looks everywhere, as much as the token's share.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from distill.alignment import FRAME_SECONDS, warp
from distill.data_config import DataConfig
from distill.decoder import Decoder
from distill.shards import passes_filter, read_shard, shard_passes
from distill.student import is_multilingual
from distill.vocabulary import TokenizerVocabulary
from pipeline.audio import decode_flac
from pipeline.features import log_mels
from pipeline.schema import SAMPLE_RATE, Sample

MIN_TOKENS = 6
"""Shorter texts are aligned by nearly any map."""
NEAR_BEST = 0.8
"""Heads that follow the speech as well as this share of the best one's score are chosen."""
MOST_HEADS = 10


def clips_to_align(data: DataConfig, number: int = 12) -> list[tuple[Sample, bytes]]:
    """Return the first clips of a training that have enough text for heads to be told apart."""
    found = []
    for reading in shard_passes(data):
        for sample, flac in read_shard(reading.path):
            if len(found) == number:
                return found
            long_enough = len(sample.pseudo_label.split()) >= MIN_TOKENS
            if long_enough and not sample.truncated and passes_filter(sample, data.filter):
                found.append((sample, flac))
    return found


def choose_alignment_heads(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    clips: Sequence[tuple[Sample, bytes]],
) -> list[list[int]]:
    """Return the (layer, head) pairs that follow the speech best; none without clips."""
    scores = [following(maps) for maps in attention_maps(model, processor, clips)]
    if not scores:
        return []
    mean_LH = np.mean(scores, axis=0)
    order = np.argsort(-mean_LH, axis=None, kind="stable")[:MOST_HEADS]
    near = [i for i in order if mean_LH.flat[i] >= NEAR_BEST * mean_LH.max()]
    return sorted([int(n) for n in np.unravel_index(i, mean_LH.shape)] for i in near)


def following(maps_LHNF: np.ndarray) -> np.ndarray:
    """Return how well each head follows the speech, (layers, heads), from 1 / tokens to 1.

    It is the share of a token's attention that lies in the frames which the cheapest monotone path
    through the head's map gives to that token; the mean over tokens.
    """
    layers, heads, num_tokens, num_frames = maps_LHNF.shape
    found = np.zeros((layers, heads))
    for layer, head in np.ndindex(layers, heads):
        map_NF = maps_LHNF[layer, head]
        map_NF = map_NF / np.maximum(map_NF.sum(axis=1, keepdims=True), 1e-12)
        starts = warp(-map_NF).astype(int)
        ends = [*starts[1:], num_frames]
        inside = [
            map_NF[token, start : max(end, start + 1)].sum()
            for token, (start, end) in enumerate(zip(starts, ends, strict=True))
        ]
        found[layer, head] = np.mean(inside)
    return found


@torch.inference_mode()
def attention_maps(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    clips: Sequence[tuple[Sample, bytes]],
) -> Iterator[np.ndarray]:
    """Yield each clip's cross-attention to its sound, (layers, heads, tokens, frames)."""
    decoder = Decoder(model.model.decoder, model.proj_out)
    settings = model.generation_config
    vocabulary = TokenizerVocabulary(
        processor.tokenizer, is_multilingual(model), getattr(settings, "lang_to_id", None)
    )
    was_training = model.training
    model.eval()
    for sample, flac in clips:
        sound = decode_flac(flac)
        features = torch.from_numpy(log_mels([sound], num_mels=model.config.num_mel_bins))
        encoded = model.model.encoder(features.to(model.device)).last_hidden_state
        prefix = vocabulary.task(sample.language, timestamps=False)
        text = vocabulary.encode(sample.pseudo_label)[: decoder.max_positions - len(prefix)]
        attention: list[Tensor] = []
        tokens = torch.tensor([[*prefix, *text]], device=encoded.device)
        decoder.step(tokens, decoder.begin(encoded), attention)
        num_frames = -(-len(sound) // round(FRAME_SECONDS * SAMPLE_RATE))
        if len(text) > num_frames:
            continue  # a label that the sound cannot hold
        maps_LHNF = torch.stack([layer[0] for layer in attention])
        # a token is written by the step before it
        maps_LHNF = maps_LHNF[:, :, len(prefix) - 1 : -1, :num_frames]
        yield maps_LHNF.float().cpu().numpy()
    model.train(was_training)
