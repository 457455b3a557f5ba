"""`whisper-distill init` and `train`: shards in, student out. The whole flow, one verb a line."""

import dataclasses
import logging
from pathlib import Path

import transformers
import yaml
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from distill.config import InitConfig, TrainConfig
from distill.data import BatchStream
from distill.student import (
    keep_generation_settings,
    load_model,
    make_student,
    num_parameters,
)
from distill.trainer import Distillation, DistillationTrainer, training_arguments
from pipeline.schema import model_path

logger = logging.getLogger(__name__)


def init(config: InitConfig) -> Path:
    """Write a student made of its teacher's layers; return its folder.

    Raises:
        ValueError: more layers asked for than the teacher has.
    """
    teacher = load_model(config.teacher)
    student = make_student(teacher, config.decoder_layers, config.encoder_layers)
    logger.info(
        "teacher %.2f M parameters, student %.2f M",
        num_parameters(teacher) / 1e6,
        num_parameters(student) / 1e6,
    )
    keep_generation_settings(student)
    processor = WhisperProcessor.from_pretrained(model_path(config.teacher))
    return save(student, processor, Path(config.output))


def train(config: TrainConfig) -> Path:
    """Train a student and return its folder, `<output>/student`.

    Raises:
        FileNotFoundError: a shard folder is not a finished dataset.
        ValueError: nothing to train on, or a student that does not fit its teacher.
    """
    transformers.set_seed(config.seed)
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "train.yaml").write_text(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))

    student = load_model(config.student)
    teacher = load_model(config.teacher) if config.teacher and needs_teacher(config) else None
    processor = WhisperProcessor.from_pretrained(model_path(config.student))
    stream = BatchStream(config.data, processor, config.seed)
    step = Distillation(
        student, teacher, config.loss, config.freeze_encoder, config.freeze_positions
    )
    trainer = DistillationTrainer(step, training_arguments(config), stream, processor)
    trainer.train(resume_from_checkpoint=last_checkpoint(config))
    return save(student, processor, output / "student")


def needs_teacher(config: TrainConfig) -> bool:
    """Tell whether the loss has a KL term."""
    return config.teacher is not None and config.loss.weights[1] > 0


def last_checkpoint(config: TrainConfig) -> str | None:
    """Return the newest checkpoint of an interrupted run, or None to begin."""
    folder = Path(config.output) / "checkpoints"
    if not config.resume or not folder.is_dir():
        return None
    found = transformers.trainer_utils.get_last_checkpoint(str(folder))
    if found:
        logger.info("going on from %s", found)
    return found


def save(
    student: WhisperForConditionalGeneration, processor: WhisperProcessor, folder: Path
) -> Path:
    """Write the student as `from_pretrained` reads it."""
    student.save_pretrained(folder)
    processor.save_pretrained(folder)
    logger.info("student written to %s", folder)
    return folder
