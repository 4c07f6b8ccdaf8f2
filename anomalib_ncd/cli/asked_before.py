# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Whether a command was given before and nothing has changed since, told in a second, without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from anomalib_ncd import __version__
from anomalib_ncd.regions.reading.file_bytes import stamp_of
from anomalib_ncd.regions.reading.listing import IMAGE_SUFFIXES, find_files
from anomalib_ncd.regions.reading.maps import MAP_SUFFIXES
from anomalib_ncd.regions.writing import write_file
from anomalib_ncd.results.class_names import FILE_NAME as NAMES_FILE

ASKED_FILE = "asked.json"
INPUTS = ("images", "anomaly_maps", "normal_images", "base", "examples", "labels", "image_list")


def digest_of_call(config: Namespace, flags: dict[str, Any]) -> str:
    """Digest of flags, parsed and as plain data, and of names, sizes and times of all files that they name."""
    digest = hashlib.sha256(json.dumps([__version__, flags], sort_keys=True).encode(errors="surrogateescape"))
    names = config.output / NAMES_FILE
    digest.update(names.read_bytes() if names.is_file() else b"")
    weights = config.backbone_weights or ""
    given = [*(config[name] for name in INPUTS), config.detector.ckpt_path, weights, *weights.split("+")]
    for file in (file for path in given if path for file in _files_of(Path(path))):
        digest.update(repr((str(file), stamp_of(file))).encode(errors="surrogateescape"))
    return digest.hexdigest()


def is_finished(output: Path, digest: str) -> bool:
    """Whether a run of the same call is there, with all files that it left."""
    try:
        asked = json.loads((output / ASKED_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return asked["call"] == digest and all((output / name).exists() for name in asked["files"])


def note_finished(output: Path, digest: str) -> None:
    """Note which call a finished run is the answer to, and what it left."""
    files = sorted(path.name for path in output.glob("*") if path.name != ASKED_FILE)
    write_file(output / ASKED_FILE, json.dumps({"call": digest, "files": files}, indent=2))


def _files_of(path: Path) -> Iterator[Path]:
    """A file itself, or images and maps of a folder; none where there is nothing."""
    if path.is_dir():
        yield from sorted(find_files(path, {*IMAGE_SUFFIXES, *MAP_SUFFIXES}))
    elif path.is_file():
        yield path
