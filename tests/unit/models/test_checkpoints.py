# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from anomalib_ncd.models.checkpoints import checked_class_names, own_part, refuse_other_settings, write_class_names

SAVED = {"backbone": "vit", "num_novel_classes": 3, "num_heads": 4}


@pytest.fixture
def file(tmp_path):
    torch.save({"epoch": 4, "anomalib_ncd": dict(SAVED), "state_dict": {"w": torch.ones(3)}}, tmp_path / "m.ckpt")
    return tmp_path / "m.ckpt"


def test_names_are_put_into_a_checkpoint(file):
    assert write_class_names(file, ("normal", "a", "a"))
    checkpoint = torch.load(file, weights_only=True)
    assert checkpoint.pop("anomalib_ncd") == SAVED | {"class_names": ["normal", "a", "a"]}
    assert checkpoint["epoch"] == 4
    assert torch.equal(checkpoint["state_dict"]["w"], torch.ones(3))
    assert [path.name for path in file.parent.iterdir()] == ["m.ckpt"]


def test_names_that_stand_there_are_not_written_again(file):
    write_class_names(file, ["normal", "a", "b"])
    stamp = file.stat().st_mtime_ns
    assert not write_class_names(file, ["normal", "a", "b"])
    assert file.stat().st_mtime_ns == stamp


def test_names_must_fit(file):
    with pytest.raises(ValueError, match="must hold 3 names"):
        write_class_names(file, ["normal", "a"])
    assert "class_names" not in torch.load(file, weights_only=True)["anomalib_ncd"]


@pytest.mark.parametrize("names", [["a", ""], ["a"], ["a", "b", "c"], "ab"])
def test_there_is_one_name_per_slot(names):
    with pytest.raises(ValueError, match="must hold 2 names that aren't empty"):
        checked_class_names(names, 2)


def test_other_checkpoints_are_refused():
    with pytest.raises(ValueError, match="no checkpoint of AnomalyNcd"):
        own_part({"state_dict": {}})


@pytest.mark.parametrize("name", ["backbone", "num_novel_classes", "num_heads"])
def test_other_settings_are_refused(name):
    refuse_other_settings(SAVED, **SAVED)
    with pytest.raises(ValueError, match=f"trained with {name}="):
        refuse_other_settings(SAVED, **SAVED | {name: "other"})
