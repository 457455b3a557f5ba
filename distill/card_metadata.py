"""The front matter of a model card, in the words that the Hub knows.

A name that the Hub does not know would be refused only after the repository was made, so a licence
that it has no identifier for is given as `other` with its name.
"""

from huggingface_hub import EvalResult, ModelCardData

from distill.card_evidence import Evidence
from distill.model_files import Variant
from distill.publish_config import PublishConfig
from pipeline.upload import HUB_LANGUAGES

_LICENCES = {
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bigcode-openrail-m",
    "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5",
    "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0",
    "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-permissive-1.0", "cdla-permissive-2.0",
    "cdla-sharing-1.0", "creativeml-openrail-m", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0",
    "eupl-1.1", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0",
    "lgpl-lr", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1",
    "openrail", "openrail++", "osl-3.0", "pddl", "postgresql", "unlicense", "wtfpl", "zlib",
}  # fmt: skip
"""Identifiers of the Hub; https://huggingface.co/docs/hub/repositories-licenses."""


def metadata(config: PublishConfig, student: Variant, evidence: Evidence) -> ModelCardData:
    """Return the card's front matter; with a model-index where something was measured.

    Raises:
        ValueError: the licence is no name.
    """
    title, teacher = config.repo_id.partition("/")[2], evidence.teacher
    measured = evidence.measured
    licence, licence_name = (None, None) if config.licence is None else hub_licence(config.licence)
    codes: list[str] = list(measured["by_language"]) if measured else []
    return ModelCardData(
        model_name=title if measured else None,
        language=sorted({HUB_LANGUAGES.get(code, code) for code in codes if code}) or None,
        license=licence,
        license_name=licence_name,
        library_name="transformers" if student.format == "transformers" else "whisper-distillery",
        pipeline_tag="automatic-speech-recognition",
        base_model=teacher if teacher and teacher.count("/") == 1 else None,
        datasets=config.datasets or None,
        metrics=[measured["rates"]["metric"]] if measured else None,
        tags=["whisper", "distillation", "whisper-distillery"],
        eval_results=_evaluations(config, evidence),
    )


def _evaluations(config: PublishConfig, evidence: Evidence) -> list[EvalResult] | None:
    if evidence.results is None or evidence.measured is None:
        return None
    rates, split = evidence.measured["rates"], evidence.results["split"]
    return [
        EvalResult(
            task_type="automatic-speech-recognition",
            task_name="Speech Recognition",
            dataset_type=config.evaluated_on or "custom",
            dataset_name=config.evaluated_on or f"{evidence.results['num_clips']} clips",
            dataset_split=split or None,
            metric_type=rates["metric"],
            metric_name=rates["metric"].upper(),
            metric_value=round(100 * rates["wer"], 2),
        )
    ]


def hub_licence(name: str) -> tuple[str, str | None]:
    """Return the Hub's identifier of a licence, and its own name where that is `other`.

    Raises:
        ValueError: the name is empty or of several lines.
    """
    given = name.strip()
    if not given or len(given.splitlines()) > 1:
        raise ValueError(f"licence is {name!r}; give an SPDX name such as apache-2.0")
    known = given.lower()
    return (known, None) if known in _LICENCES else ("other", given)
