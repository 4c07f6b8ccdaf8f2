# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""The folder of a run: names of its files, and what the run was made from."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from anomalib.models import AnomalibModule

from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.data.detector_maps import detector_digest, digest_of_weights
from anomalib_ncd.data.images import files_of
from anomalib_ncd.models.describer import OneNetwork
from anomalib_ncd.models.lightning_model import AnomalyNcd
from anomalib_ncd.regions.reading.listing import digest_of_images, mark_output, stamp_of
from anomalib_ncd.regions.writing import write_file
from anomalib_ncd.settings import plain_data

CHECKPOINT_FILE = "model.ckpt"
RESULTS_FILE = "results.npz"
REPORT_FILE = "report.html"
NUM_CLASSES_FILE = "number_of_classes.json"
BASE_FILE = "base_classes.png"
CONFIG_FILE = "config.yaml"
MADE_FROM_FILE = "made_from.json"
METRICS_FILE = "metrics.json"
RESULT_FILES = (RESULTS_FILE, REPORT_FILE, METRICS_FILE, "predictions.csv", "regions.csv", "gallery.png")

LABELS = "labels"
# Arguments of the model that change no result, or whose content is compared instead.
NOT_SETTINGS = frozenset(
    ("backbone_weights", "training", "evaluator", "visualizer", "pretrained", "pre_processor", "post_processor")
)

DATA_SETTINGS = ("sampler_seed", "region_settings", "score_range", "normal_label", "train_batch_size")

RunState = Literal["new", "begun", "finished"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MadeFrom:
    """What a run is made from; two runs of equal parts give the same."""

    settings: dict[str, Any]  # values of settings, as plain data
    # Digest of each kind of input: of content, or of sizes and times of files, whatever their paths
    inputs: dict[str, str]
    max_epochs: int = 0  # epochs of training; more of them go on with what was trained

    @classmethod
    def of(cls, model: AnomalyNcd, datamodule: NcdDataModule, method: str, **settings: Any) -> MadeFrom:
        """What a run of an untrained model on images that are set up, by a method and other settings, is made from."""
        max_epochs = settings.pop("max_epochs", 0)
        hparams = {**model.hparams, **model.hparams["training"]}
        # The describer follows from the number of normal images.
        own = {name: value for name, value in hparams.items() if name not in NOT_SETTINGS | {"describer"}}
        data = {name: getattr(datamodule, name) for name in DATA_SETTINGS}
        networks = (one for one in model.modules() if isinstance(one, OneNetwork))
        base, examples = files_of(datamodule.base_records), datamodule.examples_found
        inputs = {
            "images": digest_of_images(datamodule.records),
            "maps": _digest_of_maps(datamodule),
            "weights of the backbone": _digest(digest_of_weights(one.encoder) for one in networks),
            "base": "synthetic" if datamodule.has_synthetic_base else _digest(map(_stamp, base)),
            "examples": _digest(" ".join((one.image.key, *map(_stamp, files_of([one])))) for one in examples),
            "normal images": digest_of_images(datamodule.normal_records),
            "normal maps": _digest(_stamp(file) for file in datamodule.normal_map_paths),
            LABELS: _digest(_labels_of(datamodule)),
        }
        flat: dict[str, Any] = {}
        for name, value in plain_data({"method": method, **own, **data, **settings}).items():
            # So that a message names what differs; regions have a `method` of their own.
            flat |= {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
        return cls(flat, inputs, max_epochs)


def claim_folder(output: Path, made_from: MadeFrom, config: dict[str, Any] | None = None) -> RunState:
    """Make a folder that of a run, unless it holds another one; ``"finished"`` if there is nothing left to do.

    Errors as :func:`changed_inputs`; the folder is as it was then.
    """
    changed = changed_inputs(output, made_from)
    mark_output(output)
    state: RunState = "new" if changed is None else "begun"
    if changed:
        logger.warning("Other %s than before: the run in %s is made anew.", " and ".join(changed), output)
    elif changed is not None and _is_complete(output):
        found = notes(output)
        state = "finished" if found["finished"] and found["max_epochs"] == made_from.max_epochs else "begun"
    if config is not None:
        write_file(output / CONFIG_FILE, yaml.safe_dump(config, sort_keys=False))
    if state != "finished":
        write_json(output / MADE_FROM_FILE, {**asdict(made_from), "finished": False})
    return state


def changed_inputs(output: Path, made_from: MadeFrom) -> list[str] | None:
    """Kinds of input that are others than those of the run in a folder; ``None`` where there is no run.

    ``ValueError`` if the folder holds a run of other settings, or one that was trained on something else; labels are
    for scores alone.
    """
    has_model = (output / CHECKPOINT_FILE).is_file()
    if not has_model and not _is_complete(output):
        return None
    found = _read(output / MADE_FROM_FILE)
    names = found["settings"].keys() | made_from.settings.keys()
    other = sorted(name for name in names if found["settings"].get(name) != made_from.settings.get(name))
    if other:
        msg = f"{output} holds a run with other settings of {other}; choose another `--output` or delete it."
        raise ValueError(msg)
    changed = sorted(name for name, value in made_from.inputs.items() if found["inputs"].get(name) != value)
    others = [name for name in changed if name != LABELS]
    if others and has_model and found["settings"].get("method") == "train":
        msg = (
            f"The model in {output} was trained with other {' and '.join(others)}; choose another `--output` or delete "
            "it to train anew. `anomalib-ncd classify` and `extend` take new images as they are."
        )
        raise ValueError(msg)
    return changed


def refuse_same_folder(run: Path, output: Path) -> None:
    """Raise ``ValueError`` if a run that goes on from another one would take its folder."""
    if run.resolve() == output.resolve():
        msg = f"`output` is the folder of the run itself, {run}; choose another one."
        raise ValueError(msg)


def finish(output: Path, class_names: Sequence[str], **more: Any) -> None:
    """Note that everything that a run leaves is there, under these names of its classes, and what else it said."""
    if (output / MADE_FROM_FILE).is_file():
        write_json(output / MADE_FROM_FILE, {**notes(output), "finished": True, "names": list(class_names), **more})


def notes(output: Path) -> dict[str, Any]:
    """What ``made_from.json`` of a run says."""
    return json.loads((output / MADE_FROM_FILE).read_text(encoding="utf-8"))


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write plain data; a reader never sees a half-written file."""
    write_file(file, json.dumps(content, indent=2, ensure_ascii=False))


def _read(file: Path) -> dict[str, Any]:
    """What a run was made from, as it was written; ``ValueError`` if it can't be known."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {name: found[name] for name in ("settings", "inputs", "max_epochs", "finished")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{file.parent} doesn't say what the run in it was made from; choose another `--output` or delete it."
        raise ValueError(msg) from error


def _is_complete(output: Path) -> bool:
    return all((output / name).is_file() for name in RESULT_FILES)


def _digest_of_maps(datamodule: NcdDataModule) -> str:
    """Digest of the detector that makes the maps, or of their files."""
    if isinstance(datamodule.anomaly_maps, AnomalibModule):
        return detector_digest(datamodule.anomaly_maps)
    return _digest(map(_stamp, datamodule.map_paths))


def _labels_of(datamodule: NcdDataModule) -> Iterable[str]:
    """Labels of images and of their defects as lines of text."""
    yield repr((datamodule.class_ids, datamodule.class_names))
    for of_image in datamodule.defects or []:
        yield repr([(defect, hashlib.sha256(defect.mask.tobytes()).hexdigest()) for defect in of_image])


def _stamp(file: Path) -> str:
    return " ".join(map(str, (file.name, *stamp_of(file))))


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
