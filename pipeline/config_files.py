"""Configurations as files and as options of a command line, through one parser."""

import dataclasses
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from pipeline import with_nearest
from pipeline.config import PipelineConfig
from pipeline.files import AnyPath, path_of

set_parsing_settings(docstring_parse_attribute_docstrings=True, add_print_completion_argument=True)


def to_yaml(config: PipelineConfig) -> str:
    """Write the resolved configuration as `run --config` reads it."""
    plain = dataclasses.asdict(config)
    for group in ("decoding", "filter"):
        plain[group] = {k: list(v) if isinstance(v, tuple) else v for k, v in plain[group].items()}
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


class Parser(ArgumentParser):
    """Says which option comes nearest to one that it does not have."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with a message."""
        super().error(with_nearest(message, self), ex)


def config_parser(**options: Any) -> ArgumentParser:
    """Return a parser that reads a configuration: `--config FILE` and one option for each field."""
    parser = Parser(**options)
    parser.add_argument("--config", action="config", help="YAML file with any of the keys below")
    parser.add_class_arguments(PipelineConfig)
    return parser


def load_config(path: str | AnyPath) -> PipelineConfig:
    """Read a configuration file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key is unknown, missing or of the wrong type; the message names it.
    """
    path = path_of(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    parser = config_parser(exit_on_error=False)
    try:
        values = parser.parse_string(path.read_text(encoding="utf-8"))
    except (ArgumentError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return from_values(parser, values)


def from_values(parser: ArgumentParser, values: Namespace) -> PipelineConfig:
    """Build the configuration from what a `config_parser` has read.

    Raises:
        ValueError: a value is out of its range, or two of them do not fit together.
    """
    built = parser.instantiate(values)
    return PipelineConfig(**{f.name: built[f.name] for f in dataclasses.fields(PipelineConfig)})
