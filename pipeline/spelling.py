"""Options of a command line or a configuration that do not exist, and the one that was meant."""

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import NoReturn

from jsonargparse import ArgumentParser

_UNKNOWN = re.compile(r"unrecognized arguments: --([\w.]+)|does not accept option '([\w.]+)'")
"""As argparse says it of a command line, and jsonargparse of a configuration."""

_SUBCOMMAND = re.compile(r"Subcommand '([\w.]+)' does not accept")


class SpellingParser(ArgumentParser):
    """Says which option comes nearest to one that it does not have."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with a message."""
        action = self._subcommands_action
        found = _SUBCOMMAND.search(message)
        parser = action.choices[found[1]] if action and found else self
        options = [name.removeprefix("--") for name in parser._option_string_actions]
        super().error(with_nearest(message, options), ex)


def with_nearest(message: str, options: Collection[str]) -> str:
    """Add to a message of an unknown option which one may have been meant."""
    found = _UNKNOWN.search(message)
    if not found:
        return message
    near = get_close_matches(found[1] or found[2], options, n=1, cutoff=0.75)
    return f"{message}; did you mean {near[0]}?" if near else message
