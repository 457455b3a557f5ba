"""Configuration of `whisper-distill publish`; imports nothing heavy, so that --help is quick."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class PublishConfig:
    """Send a student, its card and its other formats to the Hugging Face Hub."""

    student: str
    """Folder of the trained student, such as OUTPUT/student of a training."""
    repo_id: str
    """OWNER/NAME of the model on the Hub."""
    private: bool = True
    """A new repository is private, and a public one is not written to unless this is false."""
    dry_run: bool = False
    """List what would be sent and deleted, and send nothing."""
    run: str | None = None
    """Folder of the training with its run.json; the student's parent if that has one."""
    results: str | None = None
    """results.json of an evaluation that judged this student, or its folder. Without it the card
    says that nothing was measured."""
    variants: list[str] | None = None
    """Folders with the same model quantised or in other formats; null takes those beside the
    student that are known to be it (exports that passed, what a training's folder has quantised),
    [] none."""
    licence: str | None = None
    """SPDX name under which the weights are given, in any case; one that the Hub has no identifier
    for is stated as `other` with its name. Not stated without it."""
    datasets: list[str] = field(default_factory=list)
    """Names on the Hub of what it was trained on."""
    evaluated_on: str = ""
    """What the evaluation's clips are called in public."""
    commit_files: int = 50
    """Files in one commit; the Hub advises 50 to 100."""

    def __post_init__(self) -> None:
        if self.commit_files < 1:
            raise ValueError(f"commit_files is {self.commit_files}; a commit has at least one file")
        from pipeline.upload import check_name  # the client of the Hub takes a while to import

        check_name(self.repo_id)
