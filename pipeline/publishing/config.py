"""What `whisper-pipeline publish` is told; light to import, because every command imports it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PublishConfig:
    """Which repository, and what may go into it."""

    repo_id: str
    """OWNER/NAME of the dataset on the Hub."""
    private: bool = True
    """A new repository is private, and a public one is not written to unless this is false."""
    append: bool = False
    """Add splits to what the repository holds; without it, it then holds this dataset only."""
    card_only: bool = False
    """Send no data, only a card that says how far the labelling is."""
    commit_files: int = 50
    """Files in one commit; the Hub advises 50 to 100."""
    allow_licence: Sequence[str] = ()
    """Licences that may be published though they are not known to permit it."""
    leave_out_forbidden: bool = False
    """Publish the rest where licences forbid some of it, instead of refusing."""

    def __post_init__(self) -> None:
        if self.commit_files < 1:
            raise ValueError(f"commit_files is {self.commit_files}; a commit has at least one file")
        if self.card_only and self.append:
            raise ValueError("card_only sends no data, so there is nothing to append; give one")
