# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Names that a user gives to discovered classes: ``class_names.json``.

The file renames classes and says which of them are the same::

    {"names": {"class_1": "scratch", "class_4": "dent"}, "same": [["class_2", "class_5"]]}

Classes go by the names that discovery gave them (``class_1`` …), whatever they were called since. Classes that are the
same share one name; so do classes that are given the same name. The slot *normal* is different, as what falls into it
is passed over: a defect becomes normal only where a group of ``same`` says so, and the group is then called normal.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from anomalib_ncd.regions.classes.prediction import CLASS_SEPARATOR

NORMAL = "normal"
FILE_NAME = "class_names.json"
PARTS = {"names", "same", "of", "regions", "num_classes"}
"""What the report saves: names of classes, and corrections of regions with them."""

Taken = TypeVar("Taken")


def read_saved(file: str | Path, take: Callable[[Any], Taken], otherwise: str = "") -> Taken:
    """Read a file that the report saves; `take` checks and takes what it holds.

    ``FileNotFoundError``, saying what to do `otherwise`, or ``ValueError`` with the file's name.
    """
    file = Path(file)
    if not file.is_file():
        msg = f"There is no file {file}; save it from the report of the run{otherwise}."
        raise FileNotFoundError(msg)
    try:
        return take(json.loads(file.read_text(encoding="utf-8-sig")))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{file} is no valid JSON ({error}); save it from the report again."
        raise ValueError(msg) from error
    except ValueError as error:
        msg = f"{file}: {error}"
        raise ValueError(msg) from error


def read_class_names(file: str | Path, slot_names: Sequence[str]) -> list[str]:
    """Names that a user gave in ``class_names.json``, as the report saves it: one per slot; slots may share a name."""
    return read_saved(file, lambda given: resolve_class_names(given, slot_names), ", or give `--names`")


def resolve_class_names(given: Any, slot_names: Sequence[str]) -> list[str]:
    """Turn ``{"names": {slot: name}, "same": [[slot, slot, …], …]}`` into one name per slot; both may be left out.

    ``ValueError`` if a class is unknown, a name is empty or holds ``;``, the same class has two names, or a defect
    would become normal without a group of ``same`` that says so.
    """
    names, groups = _checked_names(given, slot_names), _checked_groups(given, slot_names)
    resolved = {slot: slot for slot in slot_names}
    for group in groups:
        name = _name_of_group(group, names)
        resolved.update(dict.fromkeys(group, name))
    _refuse_accidents(resolved, groups)
    return [resolved[slot] for slot in slot_names]


def naming_of(slot_names: Sequence[str], class_names: Sequence[str]) -> dict[str, Any]:
    """Names and merges as the file holds them, of the name of each slot."""
    groups = defaultdict[str, list[str]](list)
    for slot, name in zip(slot_names, class_names, strict=True):
        groups[name].append(slot)
    return {
        "names": {group[0]: name for name, group in groups.items() if name != group[0]},
        "same": [group for group in groups.values() if len(group) > 1],
    }


def _checked_names(given: Any, slot_names: Sequence[str]) -> dict[str, str]:
    """The part ``names``, white space tidied up."""
    if not isinstance(given, dict) or set(given) - PARTS:
        msg = 'Expected {"names": {…}, "same": [[…], …]} and nothing else.'
        raise ValueError(msg)
    names = given.get("names", {})
    if not isinstance(names, dict):
        msg = f'"names" must map classes to names, got {names!r}.'
        raise ValueError(msg)  # noqa: TRY004 - a value of a file
    tidy = {}
    for slot, name in names.items():
        _refuse_unknown(slot, slot_names, '"names"')
        if not isinstance(name, str) or not name.split():
            msg = f"The name of {slot!r} is empty or no text: {name!r}; leave the class out to keep its name."
            raise ValueError(msg)
        if CLASS_SEPARATOR in name:
            msg = f"The name of {slot!r} holds {CLASS_SEPARATOR!r}, which parts names in tables: {name!r}; drop it."
            raise ValueError(msg)
        tidy[slot] = " ".join(name.split())
    return tidy


def _checked_groups(given: dict[str, Any], slot_names: Sequence[str]) -> list[list[str]]:
    """Groups of slots that are one class, in the order of their first slots; single slots are groups, too."""
    same = given.get("same", [])
    if not isinstance(same, list) or not all(isinstance(group, list) and len(group) > 1 for group in same):
        msg = f'"same" must be a list of lists of two classes or more, got {same!r}.'
        raise ValueError(msg)
    leader = {slot: slot for slot in slot_names}
    for group in same:
        for slot in group:
            _refuse_unknown(slot, slot_names, '"same"')
        joined = {leader[slot] for slot in group}
        target = min(joined, key=list(slot_names).index)
        leader = {slot: target if old in joined else old for slot, old in leader.items()}
    groups: dict[str, list[str]] = defaultdict(list)
    for slot in slot_names:
        groups[leader[slot]].append(slot)
    return list(groups.values())


def _refuse_unknown(slot: Any, slot_names: Sequence[str], where: str) -> None:
    """Raise for a class that the run doesn't have."""
    if slot not in slot_names:
        msg = f"{where} speaks of {slot!r}, but the classes of the run are {', '.join(slot_names)}."
        raise ValueError(msg)


def _name_of_group(group: Sequence[str], names: dict[str, str]) -> str:
    """The one name of slots that are the same class."""
    given = sorted({names[slot] for slot in group if slot in names})
    if NORMAL in group and any(slot in names for slot in group if slot != NORMAL):
        msg = f"{', '.join(group)} are the same and normal, so they can't be called {' or '.join(map(repr, given))}."
        raise ValueError(msg)
    if len(given) > 1:
        msg = f"{', '.join(group)} are the same class but have the names {' and '.join(map(repr, given))}; keep one."
        raise ValueError(msg)
    return given[0] if given else group[0]


def _refuse_accidents(resolved: dict[str, str], groups: Sequence[Sequence[str]]) -> None:
    """Raise where a name makes a class one with the normal one, or with one that was not named at all."""
    for group in groups:
        name = resolved[group[0]]
        for slot, other in resolved.items():
            keeps_its_name = slot in {other, NORMAL}
            if slot not in group and other == name and keeps_its_name:
                msg = (
                    f"{group[0]} is given the name {name!r}, which is that of another class, {slot}. "
                    f'If they are the same, say so: "same": [["{slot}", "{group[0]}"]].'
                )
                raise ValueError(msg)
