"""What a command line may leave out: quotes and brackets around lists, `true` after a switch.

`--models A B --overwrite FILE` becomes `--models=["A","B"] --overwrite=true --files=["FILE"]`,
which is how the configuration dataclasses are parsed.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, get_args, get_origin, get_type_hints


def expand(arguments: Sequence[str], kind: type, positional: Sequence[str] = ()) -> list[str]:
    """Write out the arguments of a command whose configuration is `kind`.

    Lists take all values up to the next option, switches may stand alone, and what belongs to no
    option goes to the `positional` fields in their order, then to the field `files` if there is
    one.
    """
    fields = _fields(kind)
    lists = {name: item for name, of in fields.items() if (item := _item_of_list(of))}
    switches = {name for name, of in fields.items() if of is bool}
    expanded: list[str] = []
    gathered: dict[str, list[str]] = {}
    rest, places = list(arguments), list(positional)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        if not _is_option(argument):
            if places:
                expanded.append(f"--{places.pop(0)}={argument}")
            elif "files" in fields:
                gathered.setdefault("files", []).append(argument)
            else:
                expanded.append(argument)
        elif name in lists:
            values = [value] if equals else []
            while not equals and rest and not _is_option(rest[0]):
                values.append(rest.pop(0))
            if len(values) == 1 and values[0].startswith("["):
                expanded.append(f"--{name}={values[0]}")
            else:
                gathered.setdefault(name, []).extend(values)
        elif name in switches and not equals:
            follows = rest[0].lower() if rest else ""
            expanded.append(f"--{name}={rest.pop(0) if follows in ('true', 'false') else 'true'}")
        elif equals or not rest or argument in ("-h", "--help", "--print_config"):
            expanded.append(argument)
        else:
            expanded += [argument, rest.pop(0)]
    for name, values in gathered.items():
        written = json.dumps(values) if lists[name] is str else f"[{', '.join(values)}]"
        expanded.append(f"--{name}={written}")
    return expanded


def _fields(kind: type, prefix: str = "") -> dict[str, Any]:
    """Return the types of a configuration's fields by name, those of its parts with dots."""
    found: dict[str, Any] = {}
    for name, of in get_type_hints(kind).items():
        found[prefix + name] = of
        if dataclasses.is_dataclass(of) and isinstance(of, type):
            found |= _fields(of, f"{prefix}{name}.")
    return found


def _item_of_list(of: Any) -> Any:
    """Return what a list is of, also where the list may be absent; None for what is no list."""
    for kind in (of, *get_args(of)):
        if get_origin(kind) is list:
            return get_args(kind)[0]
    return None


def _is_option(argument: str) -> bool:
    """Tell options from values; a lone dash is standard input."""
    return argument.startswith("-") and argument != "-" and not argument[1:2].isdigit()
