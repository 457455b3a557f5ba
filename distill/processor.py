"""Write what stands before a model: its tokenizer and its feature extractor.

transformers 5 writes the extractor into `processor_config.json` alone. transformers 4 and
faster-whisper look for `preprocessor_config.json`, and without it the latter takes every model for
one of 80 mel bands. So every folder that is written here has both files.
"""

from pathlib import Path

from transformers import WhisperProcessor


def save_processor(processor: WhisperProcessor, folder: str | Path) -> None:
    """Write tokenizer and feature extractor as old and new readers look for them."""
    processor.save_pretrained(folder)
    processor.feature_extractor.save_pretrained(folder)
