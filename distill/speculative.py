"""Drafts by a small decoder that the large one checks: speculative decoding for a batch.

The student proposes a few tokens, the teacher judges all of them in one step and keeps those that
it would have written itself (arXiv 2311.00430, section 3.4; Leviathan et al., arXiv 2211.17192), so
the text is the teacher's own. Where both have the same encoder its output is computed once and only
the student's decoder is loaded. The paper keeps a token only where all rows of a batch agree and
becomes slower than the teacher alone at 16 rows; here each row keeps its own.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperDecoder

from distill.decoder import Decoder
from distill.rules import Rules
from distill.student import damaged_weights, load_model
from pipeline.schema import model_path

logger = logging.getLogger(__name__)

MAX_DRAFT = 16
"""Longest draft; longer ones cost more than they can bring at any acceptance below 95 %."""
_PROBE_EVERY = 8
"""Steps after which an assistant that does not pay is tried again."""
_TOKEN_COST = {"cpu": 0.1, "cuda": 0.002}
"""What one more token of each row adds to a step, as a share of a step. Much the same for one row
as for many, since the keys of the audio, which each row has its own of, are read once a step."""
_MEMORY = 0.9
"""Weight of the past in the estimate of how many drafted tokens are kept."""


@dataclass(kw_only=True)
class Assistant:
    """A student that drafts for a teacher."""

    decoder: Decoder
    encoder: Any = None
    """None where the teacher's encoder output serves both."""


class Drafter:
    """Drafts for one batch, and learns how long drafts should be."""

    def __init__(
        self, assistant: Assistant, teacher: Decoder, encoded: Tensor, draft_length: int | None
    ) -> None:
        """Begin with nothing drafted.

        Args:
            assistant: who drafts.
            teacher: who judges; its size says what a draft may cost.
            encoded: the assistant's encoder output (batch, positions, width).
            draft_length: tokens in a draft; None adapts it.
        """
        self._decoder = assistant.decoder
        self._cache = self._decoder.begin(encoded)
        self._fixed = draft_length
        self._acceptance = [0.8] * len(encoded)
        self._draft_cost = _cost(assistant.decoder) / _cost(teacher)
        self._token_cost = _TOKEN_COST.get(encoded.device.type, _TOKEN_COST["cuda"])
        self._steps = 0

    def length(self) -> int:
        """Say how many tokens to draft now: as many as bring most tokens for the time they take."""
        if self._fixed is not None:
            return self._fixed
        self._steps += 1
        lengths = range(MAX_DRAFT + 1)
        best = max(lengths, key=self._speed)
        return best or int(self._steps % _PROBE_EVERY == 0)

    def propose(
        self, tokens: Tensor, lengths: list[int], begin: Tensor, num: int, rules: Rules
    ) -> None:
        """Write `num` tokens behind the `lengths` of each row in `tokens` (batch, room)."""
        seen = self._cache.lengths
        behind = max(length - has for length, has in zip(lengths, seen, strict=True))
        self._cache.lengths = [max(length - behind, 0) for length in lengths]
        columns = torch.tensor(self._cache.lengths, device=tokens.device)[:, None]
        new = tokens.gather(1, columns + torch.arange(behind, device=tokens.device))
        written = torch.tensor(lengths, device=tokens.device)[:, None]
        newest = written - columns - 1
        for number in range(num):
            hidden = self._decoder.step(new, self._cache)
            if number == 0:
                self._cache.lengths = list(lengths)
                hidden = hidden.take_along_dim(newest[..., None], 1)
            logits = rules.apply(self._decoder.logits(hidden), tokens, begin, written + number)
            new = logits.argmax(-1)
            tokens.scatter_(1, written + number, new)

    def learn(self, num_drafted: int, kept: list[int], lengths: list[int]) -> None:
        """Take note of how many drafted tokens each row kept; its length is now `lengths`."""
        for row, count in enumerate(kept):
            judged = min(count + 1, num_drafted)
            past = _MEMORY**judged
            self._acceptance[row] = past * self._acceptance[row] + (1 - past) * count / judged
        self._cache.lengths = [
            min(seen, length - 1) for seen, length in zip(self._cache.lengths, lengths, strict=True)
        ]

    def select(self, rows: list[int]) -> None:
        """Keep these rows only."""
        self._cache.select(rows)
        self._acceptance = [self._acceptance[row] for row in rows]

    def _speed(self, length: int) -> float:
        """Expected tokens of all rows for the time of a step with a draft of this length."""
        expected = sum(
            (1 - rate ** (length + 1)) / (1 - rate)
            for rate in (min(rate, 0.99) for rate in self._acceptance)
        )
        return expected / (1 + length * (self._draft_cost + self._token_cost))


def load_assistant(name: str, teacher: Any) -> Assistant:
    """Load the student that drafts for a teacher (`WhisperForConditionalGeneration`).

    Of a local student whose encoder is the teacher's, only the decoder is read into memory.

    Raises:
        ValueError: there is no such model, or it does not speak the teacher's tokens.
    """
    path = Path(model_path(name))
    if (path / "model.safetensors").is_file():
        config = WhisperConfig.from_pretrained(path)
        check_match(name, config, teacher.config)
        try:
            with safe_open(str(path / "model.safetensors"), framework="pt") as weights:
                if _same_encoder(weights, teacher.model.encoder):
                    decoder = _load_decoder(config, weights)
                    logger.info("%s shares the teacher's encoder; only its decoder is loaded", name)
                    return Assistant(decoder=_on_device_of(teacher, decoder))
        except SafetensorError as error:
            raise damaged_weights(name, error) from error
    model: Any = load_model(name).eval()
    check_match(name, model.config, teacher.config)
    return make_assistant(model, teacher)


def make_assistant(model: Any, teacher: Any) -> Assistant:
    """Let a loaded student draft; its encoder is kept only where it is not the teacher's.

    Raises:
        ValueError: it does not speak the teacher's tokens.
    """
    check_match("the assistant", model.config, teacher.config)
    mine, other = model.model.encoder.state_dict(), teacher.model.encoder.state_dict()
    same = mine.keys() == other.keys() and all(
        value.shape == other[key].shape
        and torch.equal(value.float().cpu(), other[key].float().cpu())
        for key, value in mine.items()
    )
    device, dtype = teacher.device, teacher.dtype
    decoder = model.model.decoder.to(device, dtype)
    return Assistant(
        decoder=Decoder(decoder, model.proj_out.to(device, dtype)),
        encoder=None if same else model.model.encoder.to(device, dtype),
    )


def check_match(name: str, assistant: Any, teacher: Any) -> None:
    """Refuse an assistant whose tokens or features are not the teacher's.

    Raises:
        ValueError: they do not match.
    """
    for what, key in (
        ("tokens", "vocab_size"),
        ("mel bands", "num_mel_bins"),
        ("as the start token", "decoder_start_token_id"),
    ):
        mine, other = getattr(assistant, key), getattr(teacher, key)
        if mine != other:
            raise ValueError(
                f"{name} cannot assist this model: it has {mine} {what}, the model {other}. "
                "Take a student of this model, or a model of the same Whisper generation."
            )


def _cost(decoder: Decoder) -> float:
    """Estimate what a step costs, in layers; the output layer is worth a few."""
    return decoder.num_layers + decoder.vocabulary_size / (14 * decoder.width)


def _same_encoder(weights: Any, encoder: Any) -> bool:
    """Compare tensor by tensor, so that two encoders are never in memory at once."""
    prefix = "model.encoder."
    names = {name for name in weights.keys() if name.startswith(prefix)}  # noqa: SIM118
    own = encoder.state_dict()
    if {name.removeprefix(prefix) for name in names} != own.keys():
        return False
    for name, value in own.items():
        saved = weights.get_tensor(prefix + name)
        if saved.shape != value.shape or not torch.equal(saved.to(value), value):
            return False
    return True


def _load_decoder(config: WhisperConfig, weights: Any) -> Any:
    prefix = "model.decoder."
    with torch.device("meta"):
        decoder = WhisperDecoder(config)
    state = {
        name.removeprefix(prefix): weights.get_tensor(name).float()
        for name in weights.keys()  # noqa: SIM118
        if name.startswith(prefix)
    }
    decoder.load_state_dict(state, assign=True)
    return decoder.eval()


def _on_device_of(teacher: Any, decoder: Any) -> Decoder:
    """Wrap a decoder whose output layer is its token embedding, as every Whisper's is."""
    decoder = decoder.to(teacher.device, teacher.dtype)
    output = torch.nn.Linear(1, 1, bias=False, device="meta")
    output.weight = decoder.embed_tokens.weight
    return Decoder(decoder, output)
