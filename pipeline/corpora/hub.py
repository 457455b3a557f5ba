"""A dataset of the Hugging Face Hub, or a local copy of one, in Parquet files or WebDataset tars.

`datasets` finds out which files make a subset and split, as the dataset's card says it; the files
are then read as kinds `parquet` and `webdataset` read them. Nothing is downloaded as a whole: rows
are listed by row group and audio is fetched when it is labelled.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

from pipeline.config import CorpusConfig
from pipeline.corpora import parquet, webdataset
from pipeline.corpora.utterance import Entry

_TIMEOUT_SECONDS = 10


def read(corpus: CorpusConfig, position: str = "") -> Iterator[tuple[str, Entry]]:
    """Yield the rows of a split.

    Raises:
        FileNotFoundError: there is no such dataset.
        ValueError: it has no such subset or split, or is stored in another way.
    """
    module, files = _files(
        corpus.path, corpus.subset, corpus.revision, corpus.source_split or corpus.split
    )
    reader = {"parquet": parquet.read_files, "webdataset": webdataset.read_tars}.get(module)
    if reader is None:
        raise ValueError(
            f"corpus {corpus.name!r}: {corpus.path} is stored as {module}, not as Parquet or "
            "WebDataset. The Hub keeps a Parquet version of most datasets: try revision: "
            "refs/convert/parquet; or download it and read it as kind folder or table"
        )
    yield from reader(corpus, list(files), position)


@functools.lru_cache(maxsize=16)
def _files(path: str, subset: str, revision: str | None, split: str) -> tuple[str, tuple[str, ...]]:
    """Return how a split is stored and its files, in the order of their names."""
    import datasets

    if not Path(path).is_dir():
        _ask_for(path, revision)
    try:
        builder = datasets.load_dataset_builder(path, subset or None, revision=revision)
    except FileNotFoundError as error:  # DatasetNotFoundError is one
        raise FileNotFoundError(f"dataset {path!r}: {error}") from error
    except ConnectionError as error:
        raise OSError(f"dataset {path!r}: the Hub does not answer ({error})") from error
    data_files = builder.config.data_files or {}
    if split not in data_files:
        raise ValueError(
            f"dataset {path!r}, subset {builder.config.name!r}, has no split {split!r}; choose "
            f"source_split from {', '.join(map(str, data_files)) or 'none'}"
        )
    module = type(builder).__module__.rsplit(".", 1)[-1]
    return module, tuple(sorted(str(file) for file in data_files[split]))


def _ask_for(name: str, revision: str | None) -> None:
    """Ask the Hub once for a dataset; `datasets` would ask for half a minute if it is away."""
    import httpx2  # what huggingface_hub speaks HTTP with
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        HfApi().dataset_info(name, revision=revision, timeout=_TIMEOUT_SECONDS)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise FileNotFoundError(
            f"dataset {name!r} is no local folder, and the Hub does not have it, or not for this "
            "HF_TOKEN"
        ) from error
    except (OSError, httpx2.TransportError) as error:
        raise OSError(f"dataset {name!r}: the Hub does not answer ({error})") from error
