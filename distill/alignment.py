"""When each token was spoken: dynamic time warping over the attention to the audio.

A few cross-attention heads of a Whisper follow the speech. Their weights, sharpened and smoothed as
OpenAI's Whisper does it, are a map of tokens against 0.02 s frames; the cheapest monotone path
through it says which frames belong to which token.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from distill.decoder import Decoder

FRAME_SECONDS = 0.02
_MEDIAN_WIDTH = 7


@torch.inference_mode()
def token_times(
    decoder: Decoder,
    encoded: Tensor,
    prefix: list[int],
    text: list[int],
    end: int,
    heads: list[tuple[int, int]] | None,
    num_frames: int,
) -> tuple[tuple[float, float], ...]:
    """Return start and end of each text token, in seconds of the window.

    Args:
        decoder: of the model that wrote the text.
        encoded: encoder output of the window (1, positions, width).
        prefix: start of transcript, task, `<|notimestamps|>`.
        text: text tokens.
        end: `<|endoftext|>`.
        heads: layer and head of those that follow the speech; None takes all heads of the last half
            of the layers, as OpenAI's Whisper does where nothing is known.
        num_frames: encoder positions that hold audio and not padding.
    """
    room = decoder.max_positions - len(prefix) - 1
    text = text[:room]
    if not text:
        return ()
    num_frames = max(min(num_frames, encoded.shape[1]), 1)
    tokens = torch.tensor([[*prefix, *text, end]], device=encoded.device)
    attention: list[Tensor] = []
    decoder.step(tokens, decoder.begin(encoded), attention)
    if heads:
        chosen = torch.stack([attention[layer][0, head] for layer, head in heads])
    else:
        chosen = torch.cat([a[0] for a in attention[len(attention) // 2 :]])
    weights = chosen[:, :, :num_frames].float()
    spread, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    weights = _median((weights - mean) / spread.clamp(min=1e-8))
    matrix = weights.mean(0)[len(prefix) - 1 : -1].cpu().numpy()  # the step that wrote each token
    starts = warp(-matrix) * FRAME_SECONDS
    bounds = [*starts.tolist(), num_frames * FRAME_SECONDS]
    return tuple(zip(bounds[: len(text)], bounds[1 : len(text) + 1], strict=True))


def warp(cost: np.ndarray) -> np.ndarray:
    """Find the cheapest monotone path through `cost` (tokens, frames) and where each token begins.

    Worked out along anti-diagonals, whose cells do not depend on each other, so that it needs as
    many steps as the matrix has sides and not as it has cells.
    """
    num_tokens, num_frames = cost.shape
    total = np.full((num_tokens + 1, num_frames + 1), np.inf)
    came = np.zeros((num_tokens + 1, num_frames + 1), dtype=np.int8)
    total[0, 0] = 0.0
    for diagonal in range(2, num_tokens + num_frames + 1):
        i = np.arange(max(1, diagonal - num_frames), min(num_tokens, diagonal - 1) + 1)
        j = diagonal - i
        options = np.stack([total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]])
        best = options.argmin(0)
        total[i, j] = cost[i - 1, j - 1] + options[best, np.arange(len(i))]
        came[i, j] = best
    starts = np.zeros(num_tokens)
    i, j = num_tokens, num_frames
    while i > 0 and j > 0:
        starts[i - 1] = j - 1
        step = came[i, j]
        i, j = i - (step != 2), j - (step != 1)
    return starts


def _median(weights: Tensor) -> Tensor:
    """Smooth along the frames."""
    half = _MEDIAN_WIDTH // 2
    if weights.shape[-1] <= half:
        return weights
    padded = functional.pad(weights, (half, half), mode="reflect")
    return padded.unfold(-1, _MEDIAN_WIDTH, 1).median(-1).values
