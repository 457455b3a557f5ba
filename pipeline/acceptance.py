"""Learn from clips with references what to accept without: logistic regression on the evidence.

Where a corpus has references, the error rate decides. Of its clips the probability is learnt that a
reference would keep them, given only what the teacher says of every clip; so it can be said how
well the evidence alone reproduces the decision, and clips without a reference can be judged by it
at a chosen precision. All that is reported is of clips that the model was not fitted on.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from pipeline import files
from pipeline.files import AnyPath, path_of
from pipeline.schema import Sample, from_json
from pipeline.speaking_rate import characters_per_second

FEATURES = (
    "avg_logprob",
    "no_speech_prob",
    "compression_ratio",
    "log_characters_per_second",
    "log_duration",
    "language_probability",
    "temperature",
)
MIN_CLIPS = 50
"""Of each kind, kept and rejected; with fewer nothing is learnt."""

_FOLDS = 5
_BINS = 10


@dataclass(frozen=True, kw_only=True)
class CalibrationPoint:
    """Clips of similar predicted probability."""

    predicted: float
    observed: float
    clips: int


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """What accepting everything from a probability upwards means."""

    threshold: float
    precision: float
    """Of the accepted, the share that the reference keeps."""
    recall: float
    """Of what the reference keeps, the share that is accepted."""


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """`acceptance.json`: a fitted model and how good it is on clips it has not seen."""

    features: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    max_wer: float
    """Of the reference-based decision that it reproduces."""
    clips: int
    auc: float
    """Area under the ROC curve: the chance that a kept clip gets more than a rejected one."""
    calibration: tuple[CalibrationPoint, ...]
    operating_points: tuple[OperatingPoint, ...]

    def probability(self, row: Sample) -> float:
        """Return how probable it is that a reference would keep a row."""
        return float(self.probabilities(np.array([features(row)]))[0])

    def probabilities(self, values: np.ndarray) -> np.ndarray:
        """Return the same for an array of features (rows, features)."""
        standard = (values - np.array(self.means)) / np.array(self.scales)
        return 1 / (1 + np.exp(-np.clip(standard @ self.weights + self.intercept, -50, 50)))

    def threshold(self, precision: float) -> float:
        """Return the lowest probability to accept at a precision.

        Raises:
            ValueError: the evidence does not allow it; the message says what it allows.
        """
        fit = [p.threshold for p in self.operating_points if p.precision >= precision]
        if not fit:
            best = max((p.precision for p in self.operating_points), default=0.0)
            raise ValueError(
                f"filter.acceptance_precision {precision} is out of reach: on clips it has not "
                f"seen the acceptance model is right in at most {best:.3f}. Ask for less, or for "
                "filter.max_disagreement with a second teacher."
            )
        return min(fit)


def features(row: Any) -> tuple[float, ...]:
    """Return the evidence of a row, in the order of `FEATURES`; a few columns of one will do."""
    rate = characters_per_second(row.pseudo_label, row.duration_seconds)
    return (
        row.avg_logprob,
        row.no_speech_prob,
        row.compression_ratio,
        float(np.log1p(rate)),
        float(np.log(max(row.duration_seconds, 0.01))),
        row.language_probability,
        row.temperature,
    )


def fit_acceptance(values: np.ndarray, kept: np.ndarray, max_wer: float) -> Acceptance | None:
    """Learn from evidence (rows, features) and the decision of the reference (rows,).

    Returns None where too few clips of one kind are there to learn from.
    """
    if min(int(kept.sum()), int((~kept).sum())) < MIN_CLIPS:
        return None
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    means, scales = values.mean(axis=0), values.std(axis=0)
    scales[scales < 1e-9] = 1.0  # what is the same in all clips says nothing
    standard = (values - means) / scales
    model = LogisticRegression(max_iter=1000)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    predicted = cross_val_predict(model, standard, kept, cv=folds, method="predict_proba")
    unseen = cast(np.ndarray, predicted)[:, 1]
    model.fit(standard, kept)
    weights = np.ravel(model.coef_).tolist()
    intercept = float(np.ravel(model.intercept_).tolist()[0])
    return Acceptance(
        features=FEATURES,
        means=_floats(means),
        scales=_floats(scales),
        weights=_floats(weights),
        intercept=round(intercept, 6),
        max_wer=max_wer,
        clips=len(kept),
        auc=round(float(roc_auc_score(kept, unseen)), 4),
        calibration=_calibration(unseen, kept),
        operating_points=_operating_points(unseen, kept),
    )


def write_acceptance(path: AnyPath, model: Acceptance) -> None:
    """Write a fitted model where `filter.acceptance_model` can name it."""
    files.write_text(path, json.dumps(dataclasses.asdict(model), indent=2) + "\n")


def read_acceptance(path: str | AnyPath) -> Acceptance:
    """Read a fitted model.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it was fitted on other evidence than this release looks at.
    """
    if not path_of(path).is_file():
        raise FileNotFoundError(
            f"filter.acceptance_model {path} does not exist; `whisper-pipeline report` writes "
            "acceptance.json into the folder of a run whose clips have references"
        )
    model = from_json(Acceptance, path_of(path).read_text(encoding="utf-8"))
    if model.features != FEATURES:
        raise ValueError(
            f"{path} was fitted on {', '.join(model.features)}; this release looks at "
            f"{', '.join(FEATURES)}. Make it again with `whisper-pipeline report`."
        )
    return model


def _floats(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)


def _calibration(predicted: np.ndarray, kept: np.ndarray) -> tuple[CalibrationPoint, ...]:
    """Compare predicted and observed shares in bins of equally many clips."""
    order = np.argsort(predicted, kind="stable")
    return tuple(
        CalibrationPoint(
            predicted=round(float(predicted[part].mean()), 4),
            observed=round(float(kept[part].mean()), 4),
            clips=len(part),
        )
        for part in np.array_split(order, _BINS)
        if len(part)
    )


def _operating_points(predicted: np.ndarray, kept: np.ndarray) -> tuple[OperatingPoint, ...]:
    """Try thresholds at every twentieth of what could be accepted."""
    points = []
    for threshold in np.unique(np.quantile(predicted, np.arange(0, 1, 0.05))):
        accepted = predicted >= threshold
        right = int((accepted & kept).sum())
        points.append(
            OperatingPoint(
                threshold=round(float(threshold), 6),
                precision=round(right / int(accepted.sum()), 4),
                recall=round(right / int(kept.sum()), 4),
            )
        )
    return tuple(points)
