"""Make a student from its teacher: which layers to copy, and the copying.

The student keeps the whole encoder and a few decoder layers, spread as far apart as they go
(Distil-Whisper, arXiv 2311.00430, section 3.2); everything else is copied as it is.
"""

import copy
import fnmatch
from collections.abc import Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from distill.hub import only_here
from distill.quantization import packed
from pipeline.schema import model_path


def layer_map(num_teacher_layers: int, num_student_layers: int) -> list[int]:
    """Return the teacher layer (from 0) that each student layer starts as.

    `int(linspace(0, teacher - 1, student))` with the last one forced to the teacher's last, as the
    reference code maps them: 32 → 2 is `[0, 31]`, 32 → 1 is `[31]`.

    Raises:
        ValueError: the student would have no layer, or more than its teacher.
    """
    if not 1 <= num_student_layers <= num_teacher_layers:
        raise ValueError(
            f"a student of {num_student_layers} layers cannot be made from a teacher of "
            f"{num_teacher_layers}; ask for 1 to {num_teacher_layers}"
        )
    gaps = max(num_student_layers - 1, 1)
    mapping = [i * (num_teacher_layers - 1) // gaps for i in range(num_student_layers)]
    mapping[-1] = num_teacher_layers - 1
    return mapping


def make_student(
    teacher: WhisperForConditionalGeneration,
    decoder_layers: int | Sequence[int] = 2,
    encoder_layers: int | Sequence[int] | None = None,
) -> WhisperForConditionalGeneration:
    """Copy the teacher with fewer layers: so many, or those listed; None keeps the whole encoder.

    The teacher may be a student itself. Its generation settings are kept, with the alignment heads
    of the layers that the student has.

    Raises:
        ValueError: more layers asked for than the teacher has, or others.
    """
    if encoder_layers is None:
        encoder_layers = teacher.config.encoder_layers
    maps = {
        "encoder": chosen_layers(teacher.config.encoder_layers, encoder_layers),
        "decoder": chosen_layers(teacher.config.decoder_layers, decoder_layers),
    }
    config = copy.deepcopy(teacher.config)
    config.encoder_layers, config.decoder_layers = map(len, maps.values())
    config.num_hidden_layers = config.encoder_layers
    student = WhisperForConditionalGeneration(config)
    weights = {
        name: value for name, value in teacher.state_dict().items() if ".layers." not in name
    }
    for part, mapping in maps.items():
        for student_layer, teacher_layer in enumerate(mapping):
            layer = teacher.get_submodule(f"model.{part}.layers.{teacher_layer}")
            prefix = f"model.{part}.layers.{student_layer}."
            weights |= {prefix + name: value for name, value in layer.state_dict().items()}
    student.load_state_dict(weights)
    student.generation_config = copy.deepcopy(teacher.generation_config)
    keep_alignment_heads(student, maps["decoder"])
    return student


def chosen_layers(num_teacher_layers: int, wanted: int | Sequence[int]) -> list[int]:
    """Return the teacher's layers that become the student's: spread out, or as listed; -1 is last.

    Raises:
        ValueError: too many, or a list that names a layer the teacher lacks, or not in order.
    """
    if isinstance(wanted, int):
        return layer_map(num_teacher_layers, wanted)
    found = [layer + num_teacher_layers if layer < 0 else layer for layer in wanted]
    if any(not 0 <= layer < num_teacher_layers for layer in found):
        raise ValueError(
            f"layers {list(wanted)} were asked for; the teacher has layers 0 to "
            f"{num_teacher_layers - 1} (or -{num_teacher_layers} to -1, counted from the last)"
        )
    if not found or found != sorted(set(found)):
        raise ValueError(
            f"layers {list(wanted)} were asked for; name at least one, each once, in rising order"
        )
    return found


def alignment_heads(
    teacher_heads: list[list[int]], layers: list[int], num_heads: int
) -> list[list[int]]:
    """Return the (layer, head) pairs of the student whose attention follows the sound.

    Word timestamps are read from them. Heads of copied layers keep their work; where no layer with
    one was copied, all heads of the upper half are taken, as Whisper does for a model that nobody
    has looked into.
    """
    heads = [
        [layers.index(layer), head]
        for layer, head in teacher_heads
        if layer in layers and head < num_heads
    ]
    upper = range(len(layers) // 2, len(layers))
    return heads or [[layer, head] for layer in upper for head in range(num_heads)]


def is_multilingual(model: WhisperForConditionalGeneration) -> bool:
    """Tell whether a Whisper is told language and task; an English-only one is not."""
    # OpenAI's rule where the settings are silent: their English vocabulary is one token smaller
    known = getattr(model.generation_config, "is_multilingual", None)
    return model.config.vocab_size != 51864 if known is None else bool(known)


PLAIN_KINDS = "`embedded`, a folder that `whisper-distill init` or `train` wrote"
MODEL_KINDS = f"{PLAIN_KINDS}, one that `quantize` wrote"
"""What may be given as a model where quantised students are taken."""


def load_model(name: str, kinds: str = MODEL_KINDS) -> WhisperForConditionalGeneration:
    """Load weights in float32; `embedded` is the model that ships with the package.

    A folder that `whisper-distill quantize` wrote is loaded, too, as the plain model it stands for.
    `kinds` is what the caller takes beside models of the Hub, for the error.

    Raises:
        ValueError: there is no Whisper model of that name, or its file is damaged.
    """
    if packed.is_packed(name):
        model = packed.load(name)
        keep_alignment_heads(model)
        return model
    try:
        here = only_here(name)
        found, _ = WhisperConfig.get_config_dict(model_path(name), local_files_only=here)
        kind = found.get("model_type")
        if kind != "whisper":
            raise ValueError(f"Its model_type is {kind!r}.")
        model = WhisperForConditionalGeneration.from_pretrained(
            model_path(name), dtype=torch.float32, local_files_only=here
        )
    except SafetensorError as error:
        raise damaged_weights(name, error) from error
    except (OSError, ValueError) as error:
        raise _no_model(name, error, kinds) from error
    keep_generation_settings(model)
    keep_alignment_heads(model)
    return model


def load_processor(name: str) -> WhisperProcessor:
    """Load the tokenizer and the feature extractor that belong to a model.

    Raises:
        ValueError: there are none of that name.
    """
    try:
        return WhisperProcessor.from_pretrained(model_path(name), local_files_only=only_here(name))
    except (OSError, ValueError) as error:
        raise _no_model(name, error, MODEL_KINDS) from error


def _no_model(name: str, error: Exception, kinds: str) -> ValueError:
    reason = " ".join(str(error).split())
    return ValueError(
        f"no Whisper model could be loaded from {name!r}; it may be {kinds}, "
        f"or the id of a model on the Hub. ({reason})"
    )


def damaged_weights(name: str, error: Exception) -> ValueError:
    """Say that a model's file of weights cannot be read."""
    return ValueError(f"the weights of {name} are damaged or cut off ({error}); copy them again")


def keep_alignment_heads(
    model: WhisperForConditionalGeneration, layers: list[int] | None = None
) -> None:
    """Leave only alignment heads that the model has; others' students may name their teachers'.

    `layers` are those of the teacher that became the model's, where it was made from one.
    """
    settings: Any = model.generation_config
    settings.alignment_heads = alignment_heads(
        getattr(settings, "alignment_heads", None) or [],
        list(range(model.config.decoder_layers)) if layers is None else layers,
        model.config.decoder_attention_heads,
    )


def keep_generation_settings(model: WhisperForConditionalGeneration) -> None:
    """Mark the generation settings as the model's own, or a reload replaces them by defaults."""
    model.generation_config._from_model_config = False


def encode(encoder: WhisperEncoder, features: Tensor) -> Tensor:
    """Run the encoder on a window: (batch, mels, frames) → (batch, frames / 2, width).

    Whisper's own forward takes 30 s only; this one also takes the beginning of such a window, which
    is much faster where clips are short. On a full window it is the library's forward pass.

    Raises:
        ValueError: an odd number of frames, or more than 30 s.
    """
    positions = features.shape[-1] // 2
    if features.shape[-1] % 2 or positions > encoder.config.max_source_positions:
        raise ValueError(
            f"a window of {features.shape[-1]} frames does not fit the encoder's "
            f"{encoder.config.max_source_positions} positions of two frames each"
        )
    hidden = functional.gelu(encoder.conv1(features))
    hidden = functional.gelu(encoder.conv2(hidden)).permute(0, 2, 1)
    hidden = hidden + encoder.embed_positions.weight[:positions]
    hidden = functional.dropout(hidden, p=encoder.dropout, training=encoder.training)
    for layer in encoder.layers:
        hidden = layer(hidden, None)
    return encoder.layer_norm(hidden)


def freeze(model: torch.nn.Module, patterns: Sequence[str]) -> None:
    """Keep the weights whose names match a pattern, such as `model.decoder.layers.0.*`.

    Raises:
        ValueError: a pattern matches no weight, or nothing would be left to train.
    """
    weights = dict(model.named_parameters())
    for pattern in patterns:
        names = fnmatch.filter(weights, pattern)
        if not names:
            raise ValueError(
                f"frozen names {pattern!r}, which matches no weight of the student; they are named "
                f"as {', '.join(list(weights)[:3])} and so on"
            )
        for name in names:
            weights[name].requires_grad_(False)
    if not any(weight.requires_grad for weight in weights.values()):
        raise ValueError("every weight of the student is frozen, there is nothing to train")


def num_parameters(model: torch.nn.Module) -> int:
    """Count the weights, shared ones once."""
    return sum(weight.numel() for weight in model.parameters())
