"""Make a student from its teacher: which layers to copy, and the copying.

The student keeps the whole encoder and a few decoder layers, spread as far apart as they go
(Distil-Whisper, arXiv 2311.00430, section 3.2); everything else is copied as it is.
"""

import copy

import torch
from torch import Tensor
from torch.nn import functional
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

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
    decoder_layers: int = 2,
    encoder_layers: int | None = None,
) -> WhisperForConditionalGeneration:
    """Copy the teacher with fewer layers; `encoder_layers=None` keeps the whole encoder.

    The alignment heads, which name layers the student does not have, are dropped from the
    generation settings; everything else of them is kept.

    Raises:
        ValueError: more layers asked for than the teacher has.
    """
    if encoder_layers is None:
        encoder_layers = teacher.config.encoder_layers
    maps = {
        "encoder": layer_map(teacher.config.encoder_layers, encoder_layers),
        "decoder": layer_map(teacher.config.decoder_layers, decoder_layers),
    }
    config = copy.deepcopy(teacher.config)
    config.encoder_layers, config.decoder_layers = encoder_layers, decoder_layers
    config.num_hidden_layers = encoder_layers
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
    if maps["decoder"] != list(range(teacher.config.decoder_layers)):
        vars(student.generation_config).pop("alignment_heads", None)
    return student


def load_model(name: str) -> WhisperForConditionalGeneration:
    """Load weights in float32; `embedded` is the model that ships with the package.

    A folder that `whisper-distill quantize` wrote is loaded, too, as the plain model it stands for.

    Raises:
        ValueError: there is no Whisper model of that name, or its file is damaged.
    """
    if packed.is_packed(name):
        return packed.load(name)
    try:
        kind = WhisperConfig.get_config_dict(model_path(name))[0].get("model_type")
        if kind != "whisper":
            raise ValueError(f"Its model_type is {kind!r}.")
        model = WhisperForConditionalGeneration.from_pretrained(
            model_path(name), dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        raise _no_model(name, error) from error
    keep_generation_settings(model)
    return model


def load_processor(name: str) -> WhisperProcessor:
    """Load the tokenizer and the feature extractor that belong to a model.

    Raises:
        ValueError: there are none of that name.
    """
    try:
        return WhisperProcessor.from_pretrained(model_path(name))
    except (OSError, ValueError) as error:
        raise _no_model(name, error) from error


def _no_model(name: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())
    return ValueError(
        f"no Whisper model could be loaded from {name!r}; it may be `embedded`, a folder that "
        f"`whisper-distill init` or `train` wrote, or the id of a model on the Hub. ({reason})"
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


def num_parameters(model: torch.nn.Module) -> int:
    """Count the weights, shared ones once."""
    return sum(weight.numel() for weight in model.parameters())
