"""`whisper-distill publish`: a student, its card and its other formats as a model of the Hub."""

import functools
import json
import logging
from collections.abc import Callable
from pathlib import Path

from distill.card_evidence import gather
from distill.model_card import make_card
from distill.model_files import (
    Variant,
    find_variant,
    is_model_file,
    read_student,
    variants_beside,
)
from distill.publish_config import PublishConfig
from pipeline import upload
from pipeline.upload import Difference, Outcome, Outgoing, Publication

logger = logging.getLogger(__name__)


def publish(config: PublishConfig) -> Difference | Outcome:
    """Publish a student, or with `dry_run` say what would be sent; print it and return it.

    Raises:
        FileNotFoundError: there is no student, it is not complete, or a file that is named is not
            there.
        ValueError: the Hub would refuse the name, or a file is damaged.
        PublishError: the token will not do, the name belongs to something else, or the Hub did not
            answer.
    """
    if not config.dry_run:
        upload.check_access(config.repo_id, "model", config.private)
    publication = plan_publication(config)
    if config.dry_run:
        done: Difference | Outcome = upload.compare(publication)
    else:
        done = upload.publish(publication, private=config.private, commit_files=config.commit_files)
    print(upload.describe(done))
    return done


def plan_publication(config: PublishConfig) -> Publication:
    """Say what the repository shall hold."""
    upload.check_name(config.repo_id)
    student = read_student(Path(config.student))
    variants = named_variants(config)
    card = make_card(config, student, variants, gather(config))
    files = [Outgoing(path.name, path) for path in student.files]
    for name, variant in variants.items():
        files += [Outgoing(f"{name}/{path.name}", path) for path in variant.files]
    seal = "config.json"
    return Publication(
        repo_id=config.repo_id,
        kind="model",
        files=(
            upload.marker("model", variants.keys()),
            *(file for file in files if file.path != seal),
        ),
        last=(
            Outgoing("README.md", card.encode()),
            *(file for file in files if file.path == seal),
        ),
        seal=seal,
        owns=_owned(config.repo_id),
    )


def _owned(repo_id: str) -> Callable[[str], bool]:
    """Return which files of a repository an earlier publication left; all else is its owner's.

    Files of models are, in the root and in the folders that the earlier publication listed.
    """

    @functools.cache
    def folders() -> frozenset[str]:
        try:
            found = json.loads(upload.download_text("model", repo_id, upload.MARKER) or "{}")
            return frozenset(found.get("folders", ()))
        except (ValueError, AttributeError, TypeError):  # changed by hand: nothing is known of it
            return frozenset()

    def owns(path: str) -> bool:
        folder, _, name = path.rpartition("/")
        return is_model_file(name) and (not folder or folder in folders())

    return owns


def named_variants(config: PublishConfig) -> dict[str, Variant]:
    """Return the other formats that are published, by the folders that they get.

    Raises:
        FileNotFoundError: a folder that is named holds no model.
        ValueError: two have the same name.
    """
    if config.variants is None:
        found = variants_beside(Path(config.student))
        for variant in found:
            logger.info("%s, %s, is published too", variant.folder, variant.format)
    else:
        found = [_variant(name) for name in config.variants]
    named: dict[str, Variant] = {}
    for variant in found:
        other = named.setdefault(variant.folder.name, variant)
        if other is not variant:
            raise ValueError(
                f"{other.folder} and {variant.folder} would be the same folder on the Hub; name "
                "one with --variants"
            )
    return named


def _variant(folder: str) -> Variant:
    found = find_variant(Path(folder).resolve())
    if found is None:
        raise FileNotFoundError(f"{folder} holds no model in a format that is known here")
    return found
