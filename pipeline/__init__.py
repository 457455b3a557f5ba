"""Label large speech corpora with a Whisper teacher and write the labels as training shards."""

__version__ = "0.1.0"
