"""Send files to a repository of the Hub: only what it lacks, in commits of bounded size.

What a repository holds is asked of the Hub each time and never remembered: its own SHA-256 (git's
SHA-1 for small files) says whether a file is there. So an interrupted upload goes on where it
ended, an unchanged repository is sent nothing, and the same comparison is the proof afterwards.

Where files that are there change, and it takes several commits, the first takes away the seal (a
dataset's `index.json`) and the last brings it back: whoever reads in between finds nothing
finished, and not half of one and half of the other. A publication that only adds to what the seal
names keeps it: what it names stays true, and an interrupted one can go on.
"""

from pipeline.upload.asking import PublishError
from pipeline.upload.publication import (
    HUB_LANGUAGES,
    MARKER,
    Difference,
    Outcome,
    Outgoing,
    Publication,
    describe,
    marker,
    public_name,
)
from pipeline.upload.reading import download_text, list_paths
from pipeline.upload.sending import (
    check_access,
    check_name,
    compare,
    has_token,
    publish,
)

__all__ = [
    "HUB_LANGUAGES",
    "MARKER",
    "Difference",
    "Outcome",
    "Outgoing",
    "Publication",
    "PublishError",
    "check_access",
    "check_name",
    "compare",
    "describe",
    "download_text",
    "has_token",
    "list_paths",
    "marker",
    "public_name",
    "publish",
]
