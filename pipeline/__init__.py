"""Label large speech corpora with a Whisper teacher and write the labels as training shards."""

__version__ = "0.1.0"

_EXTRAS = {
    "av": "video",
    "ctranslate2": "fast",
    "onnx": "export",
    "onnxruntime": "vad",
    "s3fs": "s3",
    "silero_vad": "vad",
}


def how_to_install(error: ModuleNotFoundError, extra: str) -> str:
    """Say what to install where an import failed.

    Args:
        error: as Python raised it.
        extra: of the package that the command belongs to, which brings everything not listed here.

    Raises:
        ModuleNotFoundError: what is missing is a module of this project.
    """
    name = (error.name or "").partition(".")[0]
    if name in ("pipeline", "distill"):
        raise error
    if not name or "pip install" in str(error):
        return str(error)
    return f"{name} is not installed: pip install 'whisper-distillery[{_EXTRAS.get(name, extra)}]'"
