"""Where real speech, noise and a teacher of real dimensions may be; nothing needs them to pass.

Tests that use them skip where they are absent. The folder is beside the repository, or where
`WHISPER_DISTILLERY_TEST_DATA` says.
"""

import os
from pathlib import Path

SHARED = Path(
    os.environ.get("WHISPER_DISTILLERY_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")
)
SPEECH = SHARED / "speech"
"""A folder for each corpus, with NeMo's manifest.jsonl in it."""
TEACHER = SHARED / "models" / "whisper-tiny.en-relearned"
ABSENT = f"needs real speech and a teacher in {SHARED} (WHISPER_DISTILLERY_TEST_DATA)"
