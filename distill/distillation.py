"""The distillation step: what one micro-batch costs a student.

`Distillation.forward` is one training step: encoder once, student and teacher decoders on the same
inputs, masked positions dropped before the vocabulary projection, logits of a few tokens at a time,
one loss divided by the tokens of the whole optimiser step.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, WhisperForConditionalGeneration

from distill.hidden import HiddenLoss, HiddenStates, capturing, gradient_share
from distill.loss_config import LossConfig
from distill.losses import count_labels, label_positions, spelling_loss
from distill.projection import projected_loss
from distill.student import encode, freeze

Encode = Callable[[Any, Tensor], Tensor]
"""Takes an encoder and features (batch, mels, frames); returns (batch, positions, width)."""

EAGER_FRAMES = 1000
"""Windows up to here use plain attention on a CPU in bfloat16; see `choose_attention`."""


class Distillation(nn.Module):
    """A student with its loss; the teacher is at hand, but is neither trained nor saved."""

    def __init__(
        self,
        student: WhisperForConditionalGeneration,
        teacher: WhisperForConditionalGeneration | None,
        loss: LossConfig,
        freeze_encoder: bool,
        freeze_positions: bool,
        letters: Sequence[int] = (),
        hidden_loss: HiddenLoss | None = None,
        frozen: Sequence[str] = (),
        compiled: bool = False,
        encode: Encode = encode,
    ) -> None:
        """Join the models; `hidden_loss` compares their decoders layer by layer (distill.hidden).

        `encode` runs an encoder on features; another one may remember what it has heard.

        Raises:
            ValueError: their predictions cannot be compared, a hidden-state loss has no teacher, or
                nothing is left to train.
        """
        super().__init__()
        self.student = student
        self._teacher = (teacher,)  # in a tuple, so that torch does not register it
        self.loss = loss
        self.encode = encode
        self.letters = torch.tensor(letters)
        self.hidden_loss = hidden_loss  # a module's own weights are trained along
        self.measuring = False
        self.gradient_share: float | None = None  # the hidden loss's, of the last measured step
        if hidden_loss is not None and teacher is None:
            raise ValueError("a loss on hidden states needs a teacher: set `teacher`")
        self.freeze_encoder = freeze_encoder
        if freeze_encoder:
            student.model.encoder.requires_grad_(False)
        student.model.decoder.embed_positions.requires_grad_(not freeze_positions)
        student.model.encoder.embed_positions.requires_grad_(False)
        freeze(student, frozen)
        self._decoders = {
            id(model): torch.compile(model.model.decoder, dynamic=True) if compiled else None
            for model in (student, teacher)
            if model is not None
        }
        if teacher is not None:
            _check_comparable(student, teacher)
            teacher.requires_grad_(False).eval()
        self.share_encoder = (
            freeze_encoder and teacher is not None and _same_encoder(student, teacher)
        )

    @property
    def teacher(self) -> WhisperForConditionalGeneration | None:
        """The model to learn from; None where the loss has labels only."""
        return self._teacher[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the teacher along when the student is moved to a device."""
        if self.teacher is not None:
            self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> Self:
        """Switch dropout; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.freeze_encoder:
            self.student.model.encoder.eval()
        return self

    def forward(
        self,
        input_features: Tensor,
        decoder_input_ids: Tensor,
        labels: Tensor,
        spelling: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss of a micro-batch.

        Features are (batch, mels, frames), decoder inputs and labels (batch, tokens), `spelling`
        (batch, letters) is needed by the CTC term only.
        `num_items_in_batch` counts the labels of the whole optimiser step (default: of this batch).
        """
        for model in filter(None, (self.student, self.teacher)):
            choose_attention(model, input_features)
        kept = label_positions(labels)
        tokens = count_labels(labels) if num_items_in_batch is None else num_items_in_batch
        with torch.set_grad_enabled(not self.freeze_encoder and torch.is_grad_enabled()):
            sound = self.encode(self.student.model.encoder, input_features)
        ours, student_ND = self._decode(self.student, sound, decoder_input_ids, kept)
        theirs, teacher_ND = HiddenStates(), None
        kl_weight = self.loss.weights[1]
        if self.teacher is not None and (kl_weight or self.hidden_loss is not None):
            with torch.no_grad():
                heard = sound
                if not self.share_encoder:
                    heard = self.encode(self.teacher.model.encoder, input_features)
                theirs, teacher_ND = self._decode(self.teacher, heard, decoder_input_ids, kept)
        parts = projected_loss(
            student_ND,
            self.student.proj_out,
            teacher_ND if kl_weight else None,
            self.teacher.proj_out if self.teacher is not None else None,
            labels[kept],
            tokens,
            self.loss.options,
        )
        loss = parts.pop("loss")
        if self.loss.ctc_weight:
            assert spelling is not None, "the CTC term needs the batch's spelling"
            letters_LD = self.student.model.decoder.embed_tokens(self.letters.to(sound.device))
            parts["ctc"] = spelling_loss(sound, letters_LD, spelling) / tokens
            loss = loss + self.loss.ctc_weight * parts["ctc"]
        if self.hidden_loss is not None:
            for name, term in self.hidden_loss(ours, theirs).items():
                parts[name] = term / tokens
                if self.measuring and torch.is_grad_enabled():
                    self.gradient_share = gradient_share(parts[name], loss, self.student)
                loss = loss + parts[name]
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}

    def _decode(
        self,
        model: WhisperForConditionalGeneration,
        sound: Tensor,
        inputs: Tensor,
        kept: Tensor,
    ) -> tuple[HiddenStates, Tensor]:
        """Return the decoder's output (tokens, width) at the positions that have a label."""
        with capturing(model, kept, self.hidden_loss is not None) as states:
            decoder = self._decoders[id(model)]  # asking a compiled one whether it is true raises
            decoder = model.model.decoder if decoder is None else decoder
            hidden = decoder(input_ids=inputs, encoder_hidden_states=sound, use_cache=False)
        return states, hidden.last_hidden_state[kept]


def choose_attention(model: WhisperForConditionalGeneration, features: Tensor) -> None:
    """Use plain attention for short windows in bfloat16 on a CPU, torch's fused one elsewhere.

    The backward pass of the fused CPU kernel is slow in bfloat16. A step with it takes 1.96 times
    as long over windows of 2.5 s, as long over 10 s, and 0.69 times as long over 30 s (two AMX
    cores, 2026-11-20, `tests/benchmarks/bench_attention.py`).
    """
    in_bfloat16 = features.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    short = features.shape[-1] <= EAGER_FRAMES
    wanted = "eager" if in_bfloat16 and short else "sdpa"
    if model.config._attn_implementation != wanted:
        model.set_attn_implementation(wanted)


def _check_comparable(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    for name in ("vocab_size", "num_mel_bins"):
        ours, theirs = getattr(student.config, name), getattr(teacher.config, name)
        if ours != theirs:
            raise ValueError(
                f"the student's {name} is {ours}, its teacher's {theirs}: distillation compares "
                "their predictions token by token, so start the student from this teacher"
            )


def _same_encoder(
    student: WhisperForConditionalGeneration, teacher: WhisperForConditionalGeneration
) -> bool:
    ours, theirs = (m.model.encoder.state_dict() for m in (student, teacher))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
