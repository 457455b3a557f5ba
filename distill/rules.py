"""What a Whisper may write next: suppressed tokens, and the grammar of timestamps.

The rules are OpenAI's, in the order in which `transformers` applies them. They are worked out for
many positions of many rows at once, because speculative decoding judges a whole draft in one step
and must judge it exactly as single steps would have.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_NEVER = -float("inf")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Which tokens are allowed where, for one model and one way of decoding."""

    end: int
    """`<|endoftext|>`."""
    first_timestamp: int
    """`<|0.00|>`."""
    suppressed: frozenset[int] = frozenset()
    """Never written."""
    suppressed_first: frozenset[int] = frozenset()
    """Not written as the first token."""
    timestamps: bool = False
    """Write timestamps, in pairs around each segment."""
    max_initial_timestamp: int | None = 50
    """The first timestamp is at most so many steps of 0.02 s; None allows any."""

    def apply(self, logits: Tensor, tokens: Tensor, begin: Tensor, index: Tensor) -> Tensor:
        """Forbid what may not stand at each position.

        Args:
            logits: (batch, new, vocabulary) of the tokens at `index`; changed in place.
            tokens: (batch, room) the rows as far as they are written; what lies at or after a
                position has no influence on it.
            begin: (batch,) where the prompt ends and the answer begins.
            index: (batch, new) positions in `tokens` that the logits are for.

        Returns:
            The logits, with `-inf` for what is forbidden.
        """
        begin = begin[:, None]
        first = index == begin
        size, device = logits.shape[-1], logits.device
        if self.suppressed_first:
            suppressed_first = _among(self.suppressed_first, size, device)
            logits.masked_fill_(suppressed_first & first[..., None], _NEVER)
        if self.suppressed:
            logits.masked_fill_(_among(self.suppressed, size, device), _NEVER)
        return self._time(logits, tokens, begin, index) if self.timestamps else logits

    def _time(self, logits: Tensor, tokens: Tensor, begin: Tensor, index: Tensor) -> Tensor:
        """Apply the grammar of timestamps."""
        vocabulary = torch.arange(logits.shape[-1], device=logits.device)
        is_time = vocabulary >= self.first_timestamp
        logits[..., self.first_timestamp - 1] = _NEVER  # <|notimestamps|>

        own = torch.arange(tokens.shape[1], device=tokens.device) >= begin
        times = torch.where(own & (tokens >= self.first_timestamp), tokens, -1)
        first, second = index == begin, index == begin + 1
        last_was = ~first & (times.gather(1, (index - 1).clamp(min=0)) >= 0)
        one_before = times.gather(1, (index - 2).clamp(min=0)) >= 0
        before_was = first | second | one_before
        must_be_text = last_was & before_was
        must_be_time = last_was & ~before_was
        logits.masked_fill_(must_be_text[..., None] & is_time, _NEVER)
        logits.masked_fill_(must_be_time[..., None] & (vocabulary < self.end), _NEVER)

        latest = times.cummax(1).values.gather(1, (index - 1).clamp(min=0))
        latest = torch.where(first, -1, latest)
        least = torch.where(latest < 0, 0, latest + (~must_be_time).long())
        logits.masked_fill_(is_time & (vocabulary < least[..., None]), _NEVER)

        logits.masked_fill_(first[..., None] & ~is_time, _NEVER)
        if self.max_initial_timestamp is not None:
            too_late = vocabulary > self.first_timestamp + self.max_initial_timestamp
            logits.masked_fill_(first[..., None] & too_late, _NEVER)

        logprobs = logits.log_softmax(-1)
        any_time = logprobs[..., self.first_timestamp :].logsumexp(-1)
        best_text = logprobs[..., : self.first_timestamp].amax(-1)
        logits.masked_fill_((any_time > best_text)[..., None] & ~is_time, _NEVER)
        return logits


def rules_of(
    generation_config: Any, tokenizer_size: int, end: int, first_timestamp: int, timestamps: bool
) -> Rules:
    """Read the rules from a model's generation settings.

    Raises:
        ValueError: timestamps are asked for, and the vocabulary has none.
    """
    if timestamps and first_timestamp >= tokenizer_size:
        raise ValueError("this model's vocabulary has no timestamps; decode without them")
    return Rules(
        end=end,
        first_timestamp=first_timestamp,
        suppressed=_ids(getattr(generation_config, "suppress_tokens", None)),
        suppressed_first=_ids(getattr(generation_config, "begin_suppress_tokens", None)),
        timestamps=timestamps,
        max_initial_timestamp=getattr(generation_config, "max_initial_timestamp_index", None),
    )


def _ids(tokens: Iterable[int] | None) -> frozenset[int]:
    return frozenset(token for token in tokens or () if token >= 0)


@functools.lru_cache(maxsize=64)
def _among(ids: frozenset[int], size: int, device: torch.device) -> Tensor:
    """Return a mask (size,) of some tokens; ids that the model does not have are left out."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[[i for i in ids if i < size]] = True
    return mask.to(device)
