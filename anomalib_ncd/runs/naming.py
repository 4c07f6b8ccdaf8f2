# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The classes of a run, called what the user calls them, as long as they are the ones that were named.

``class_names.json`` in a run says of which classes its names are: a digest of what each region was sorted into. Where
a run is made anew, names go with their regions; those whose regions fell apart are dropped.
"""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anomalib_ncd.results.class_names import FILE_NAME, NORMAL, naming_of, read_class_names, resolve_class_names
from anomalib_ncd.results.corrections import SAME_OVERLAP, majority, overlap
from anomalib_ncd.results.run_results import RunResults, digest_of_classes, regions_of_images
from anomalib_ncd.runs.files import write_run_files
from anomalib_ncd.runs.folder import REPORT_FILE, RESULTS_FILE, finish, write_json

DROPPED_FILE = "class_names.old.json"

logger = logging.getLogger(__name__)


def name_classes(run: str | Path, names: str | Path | None = None) -> list[str]:
    """Write the tables, pictures and checkpoint of a finished run again under other names; nothing is predicted again.

    The file of names is as the report saves it, and is kept in the run as ``class_names.json``, which is the default.
    Returns the name of each slot. ``FileNotFoundError`` if there is no finished run or no such file; ``ValueError`` if
    the file is wrong, or names other classes than the run has now.
    """
    run = Path(run)
    file = Path(names or run / FILE_NAME)
    results = RunResults.load(run / RESULTS_FILE)
    class_names = read_class_names(file, results.slot_names)
    given, digest = _read(file), digest_of_classes(results)
    if given.get("of", digest) != digest:
        msg = f"{file} names classes that {run} doesn't have any more; save the names from its report again."
        raise ValueError(msg)
    write_run_files(run, results, class_names)
    write_json(run / FILE_NAME, {**{part: given[part] for part in ("names", "same") if part in given}, "of": digest})
    finish(run, class_names)
    if given.get("regions") or given.get("num_classes"):
        logger.warning(
            "%s also corrects regions or classes: `anomalib-ncd refine %s --corrections %s`.", file, run, file
        )
    logger.info("The classes of %s are called %s now.", run, ", ".join(dict.fromkeys(class_names)))
    logger.info("Look at %s.", run / REPORT_FILE)
    return class_names


def check_names(output: Path, slot_names: list[str]) -> None:
    """Raise ``ValueError`` for a wrong file of names, before hours of training."""
    if (output / FILE_NAME).is_file():
        before = _results_before(output)
        read_class_names(output / FILE_NAME, slot_names if before is None else before.slot_names)


def copy_names(run: Path, output: Path) -> None:
    """Give a run that goes on from another one the names of that one, unless it has names."""
    if (run / FILE_NAME).is_file() and not (output / FILE_NAME).is_file():
        write_json(output / FILE_NAME, {key: part for key, part in _read(run / FILE_NAME).items() if key != "of"})


def carry_names(output: Path, results: RunResults) -> list[str]:
    """Names of the slots for new results of a run, which are not saved yet.

    A slot is called as the user named it where it gathers the regions that it gathered then.
    """
    file = output / FILE_NAME
    if not file.is_file():
        return list(results.slot_names)
    given, digest, before = _read(file), digest_of_classes(results), _results_before(output)
    of = given.get("of")
    carried, dropped = given, set[str]()
    if of != digest and (of is not None or before is not None):
        is_of_before = before is not None and of in {None, digest_of_classes(before)}
        stayed = slots_that_stayed(before, results) if is_of_before and before is not None else {}
        carried, dropped = _carried(given, stayed)
    try:
        class_names = resolve_class_names(carried, results.slot_names)
    except ValueError:
        if carried is given:
            raise
        class_names, carried, dropped = list(results.slot_names), {}, set(given.get("names", {}))  # names that met
    if dropped:
        file.replace(output / DROPPED_FILE)
        lost = ", ".join(sorted(repr(given.get("names", {}).get(slot, slot)) for slot in dropped))
        text = "The classes of %s are others than those that were named; the names of %s were dropped (%s has them)."
        logger.warning(text, output, lost, DROPPED_FILE)
    write_json(file, {**carried, "of": digest})
    return class_names


def name_known(output: Path, results: RunResults, known: Sequence[str]) -> list[str]:
    """:func:`carry_names`, but that slots with a `known` name, other than discovery's, have that one."""
    carried = carry_names(output, results)
    slots = zip(results.slot_names, known, carried, strict=True)
    names = [carried_name if name == slot else name for slot, name, carried_name in slots]
    if names != carried:
        write_json(output / FILE_NAME, {**naming_of(results.slot_names, names), "of": digest_of_classes(results)})
    return names


def slots_that_stayed(before: RunResults, after: RunResults) -> dict[str, str]:
    """Find the classes of a run in a later state of it: the new slot of each old one.

    It is the one that most of its regions went to, where most of the regions that are there before and after, and in
    the new slot, came from the old one. A region is the same where most of it, or of what it was, lies in the other.
    """
    old, new = regions_of_images(before), regions_of_images(after)
    moves = Counter[tuple[str, str]]()
    for key in old.keys() & new.keys():
        for box, slot in old[key]:
            share, target = max((overlap(box, other), name) for other, name in new[key])
            if share > SAME_OVERLAP:
                moves[slot, target] += 1
    stayed = majority(moves)
    return {source: target for source, target in stayed.items() if (source == NORMAL) == (target == NORMAL)}


def _carried(given: dict[str, Any], stayed: dict[str, str]) -> tuple[dict[str, Any], set[str]]:
    """Names and groups of the slots that stayed, and the slots whose names are lost."""
    names, groups = given.get("names", {}), given.get("same", [])
    named = {*names, *(slot for group in groups for slot in group)}
    kept = [[stayed[slot] for slot in group if slot in stayed] for group in groups]
    carried = {
        "names": {stayed[slot]: name for slot, name in names.items() if slot in stayed},
        "same": [group for group in kept if len(group) > 1],
    }
    return carried, named - stayed.keys()


def _results_before(output: Path) -> RunResults | None:
    file = output / RESULTS_FILE
    return RunResults.load(file) if file.is_file() else None


def _read(file: Path) -> dict[str, Any]:
    """A file of names as it stands; it was checked before."""
    return json.loads(file.read_text(encoding="utf-8-sig"))
