# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from anomalib_ncd import AnomalyNcd
from anomalib_ncd.models.checkpoints import (
    checked_class_names,
    is_made_from_clusters,
    own_part,
    refuse_other_settings,
    save_model,
    slot_kinds,
    write_class_names,
)

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


def test_older_checkpoints_of_clusters_say_so_by_having_no_normal_slot():
    assert is_made_from_clusters({"has_normal_slot": False})
    assert is_made_from_clusters({"has_normal_slot": True, "made_from_clusters": True})
    assert not is_made_from_clusters({"has_normal_slot": True})
    assert not is_made_from_clusters({})
    assert slot_kinds({}) == (True, False)
    assert slot_kinds({"has_normal_slot": False}) == (False, True)


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


def test_names_do_not_hold_what_parts_them():
    with pytest.raises(ValueError, match=r"must not hold ';'.*\['a;b', 'c'\]"):
        checked_class_names(["a;b", "c"], 2)


def test_other_checkpoints_are_refused():
    with pytest.raises(ValueError, match="no checkpoint of AnomalyNcd"):
        own_part({"state_dict": {}})


@pytest.mark.parametrize("name", ["backbone", "num_novel_classes", "num_heads"])
def test_other_settings_are_refused(name):
    refuse_other_settings(SAVED, **SAVED)
    with pytest.raises(ValueError, match=f"trained with {name}="):
        refuse_other_settings(SAVED, **SAVED | {name: "other"})


def test_a_saved_model_loads_again(tmp_path):
    model = AnomalyNcd(backbone="test_vit", pretrained=False, mask_layers=3, num_novel_classes=3)
    model.set_base_classes([])
    model.has_normal_slot = False
    model.class_names = ["dent", "scratch", "dent"]
    model.score_range.copy_(torch.tensor([0.25, 0.75]))
    save_model(model, tmp_path / "model.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]
    loaded = AnomalyNcd.load_from_checkpoint(tmp_path / "model.ckpt")
    assert loaded.base_class_names == []
    assert loaded.class_names == ["dent", "scratch", "dent"]
    assert loaded.novel_class_names == ["class_1", "class_2", "class_3"]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value)


def test_checkpoints_from_before_there_were_names_load(tmp_path):
    model = AnomalyNcd(backbone="test_vit", pretrained=False, mask_layers=3, num_novel_classes=3)
    save_model(model, tmp_path / "model.ckpt")
    checkpoint = torch.load(tmp_path / "model.ckpt", weights_only=True)
    del checkpoint["anomalib_ncd"]["class_names"], checkpoint["anomalib_ncd"]["has_normal_slot"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    loaded = AnomalyNcd.load_from_checkpoint(tmp_path / "old.ckpt")
    assert loaded.class_names == ["normal", "class_1", "class_2"]
