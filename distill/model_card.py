"""The model card: what was measured, what it was trained on, and what it cannot do.

A number is on the card only if a file says it: `results.json` of an evaluation, `run.json` of the
training, the weights themselves. What nobody measured is called so.
"""

from typing import Any

from distill.card_evidence import Evidence
from distill.card_metadata import metadata
from distill.model_files import Variant
from distill.publish_config import PublishConfig
from distill.quantization.sizes import inspect
from pipeline.upload import public_name


def make_card(
    config: PublishConfig, student: Variant, variants: dict[str, Variant], evidence: Evidence
) -> str:
    """Return the README of a model repository; `variants` are by their folder in it."""
    title = config.repo_id.partition("/")[2]
    teacher = evidence.teacher
    origin = f"a student of {teacher}" if teacher else "a Whisper model"
    sections = [
        f"---\n{metadata(config, student, evidence).to_yaml()}\n---",
        f"# {title}",
        f"Speech recognition: {origin}, made with whisper-distillery.",
        *_results(evidence),
        *_sizes(config, student, variants),
        *_training(evidence),
        *_limits(config, evidence),
        *_usage(config, student, variants),
    ]
    return "\n\n".join(sections) + "\n"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _data(results: dict[str, Any]) -> str:
    """Say what was heard, without the paths of the machine that heard it."""
    names = ", ".join(public_name(name) for name in results["data"])
    return f"split {results['split']} of {names}" if results["split"] else names


def _results(evidence: Evidence) -> list[str]:
    results = evidence.results
    if results is None:
        return ["## Results", "Nothing was measured: no evaluation was published with this model."]
    rows = [
        [
            public_name(model["model"]),
            f"{model['rates']['wer']:.2%}",
            f"{model['rates']['wer_low']:.2%} to {model['rates']['wer_high']:.2%}",
            f"{model['rates']['cer']:.2%}",
            f"{model['relative_speed']:.2f} x",
        ]
        for model in results["models"]
    ]
    metric = results["models"][0]["rates"]["metric"].upper()
    note = (
        f"{results['num_clips']} clips of {_data(results)}, "
        f"{results['audio_seconds'] / 60:.1f} minutes, greedy, batches of {results['batch_size']} "
        f"on {results['device']}. Case and punctuation do not count as errors. Intervals are "
        "95 %, by bootstrap over clips; speed is relative to the first model."
    )
    found = [
        "## Results",
        _table(["model", metric, "interval", "CER", "speed"], rows),
        note,
    ]
    compared = (evidence.measured or {}).get("comparison")
    if compared:
        found.append(
            f"The difference to the first model is {100 * compared['wer_difference']:+.2f} points "
            f"({100 * compared['low']:+.2f} to {100 * compared['high']:+.2f}, p = "
            f"{compared['p_value']:.3f}, paired resamples)."
        )
    return found


def _sizes(config: PublishConfig, student: Variant, variants: dict[str, Variant]) -> list[str]:
    report = inspect(student.folder)
    rows = [
        [name, variant.format, variant.numbers, f"{variant.weight_bytes / 1e6:.2f} MB"]
        for name, variant in [
            ("(root)", student),
            *((f"`{name}`", v) for name, v in variants.items()),
        ]
    ]
    return [
        "## Sizes",
        f"{report.parameters / 1e6:.2f} million weights.",
        _table(["folder", "format", "numbers", "weights"], rows),
    ]


def _training(evidence: Evidence) -> list[str]:
    run = evidence.run
    if run is None:
        return ["## Training", "There is no record of the training beside the model."]
    try:
        return _told(run, evidence.teacher)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"run.json of the training is damaged or of another release ({error!r}); name another "
            "with --run, or publish with the release that wrote it"
        ) from error


def _told(run: dict[str, Any], teacher: str | None) -> list[str]:
    """Return what the record of a training says."""
    config = run["config"]
    loss, data = config["loss"], config["data"]
    rows = [
        ["started from", public_name(config["student"])],
        ["teacher", teacher or "none"],
        ["labels", f"`labels@{data['labels']}`" if data.get("labels") else "of the shards"],
        [
            "steps, labels learnt from",
            f"{run['steps']:,}, {run['tokens']:,} tokens ({run['ended']})",
        ],
        ["trained weights", f"{run['trained_parameters']:,} of {run['student_parameters']:,}"],
        ["learning rate", f"{config['learning_rate']:g}, {config['schedule']}"],
        ["loss", f"preset {loss['preset']}, temperature {loss['temperature']:g}"],
        ["hardware", _hardware(run["hardware"])],
        ["versions", ", ".join(f"{name} {v}" for name, v in run["versions"].items())],
    ]
    parts = [
        [
            ", ".join(part["corpora"]),
            str(part["clips"]),
            f"{part['hours']:.2f}",
            _threshold(part, data),
            f"`{part['shard_key']}`",
        ]
        for part in run["data"]
    ]
    header = ["corpora", "clips", "hours", "λ", "shard_key"]
    return [
        "## Training",
        _table(["", ""], rows),
        _table(header, parts),
        "λ is the highest error rate between a pseudo-label and its reference that was kept.",
    ]


def _threshold(part: dict[str, Any], data: dict[str, Any]) -> str:
    """Return the error rate up to which labels were kept, of the shards or at reading.

    The shards' own counts only where their own labels were learnt.
    """
    limits = [(data.get("filter") or {}).get("max_wer")]
    if not data.get("labels"):
        limits.append(part.get("max_wer"))
    known = [limit for limit in limits if limit is not None]
    return f"{min(known):g}" if known else "not on record"


def _hardware(hardware: dict[str, Any]) -> str:
    devices = ", ".join(hardware["gpus"]) or hardware["processor"]
    number = hardware["processes"]
    return f"{devices}, {number} process{'' if number == 1 else 'es'}"


def _limits(config: PublishConfig, evidence: Evidence) -> list[str]:
    lines = [
        "- It learned from a model's labels: it repeats that model's mistakes, spelling and "
        "habits, and adds its own.",
        "- It may write fluent text for noise, music or silence, and repeat itself.",
        "- Speech that the training data lacks (accents, noise, subjects, languages) was not "
        "learned, whatever the architecture could do; it was trained to transcribe, not to "
        "translate.",
    ]
    if evidence.measured is None:
        lines.append("- Its error rate is not known. Measure it before it is used.")
    if config.licence is None:
        lines.append("- No licence is stated: ask who published it before you use it.")
    return ["## Limits", "\n".join(lines)]


def _usage(config: PublishConfig, student: Variant, variants: dict[str, Variant]) -> list[str]:
    own = (
        f"hf download {config.repo_id} --local-dir model\n"
        "whisper-distill transcribe --model model talk.wav"
    )
    found = ["## Use", f"```\n{own}\n```"]
    if student.format == "transformers":
        code = (
            "from transformers import WhisperForConditionalGeneration, WhisperProcessor\n\n"
            f'processor = WhisperProcessor.from_pretrained("{config.repo_id}")\n'
            f'model = WhisperForConditionalGeneration.from_pretrained("{config.repo_id}")\n'
            'inputs = processor(audio, sampling_rate=16_000, return_tensors="pt")\n'
            "tokens = model.generate(inputs.input_features)\n"
            "print(processor.batch_decode(tokens, skip_special_tokens=True))"
        )
        found += ["With transformers, for mono audio of 16 kHz:", f"```python\n{code}\n```"]
    else:
        found.append("Its weights are packed integers, which transformers does not read.")
    if variants:
        found.append("The folders above hold the same model for other runtimes.")
    return found
