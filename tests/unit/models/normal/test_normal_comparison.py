# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from anomalib_ncd import AnomalyNcd, NcdDataModule
from anomalib_ncd.data.batches import NcdBatch
from anomalib_ncd.models.normal.normal_comparison import compare_with_normal
from anomalib_ncd.models.normal.normal_patches import NormalPatches
from anomalib_ncd.settings import TrainingSettings


def build(backbone="test_vit"):
    torch.manual_seed(0)
    return AnomalyNcd(
        backbone=backbone, pretrained=False, training=TrainingSettings(mask_layers=3), num_novel_classes=3
    ).eval()


def data(run, **arguments):
    return NcdDataModule(run.images, run.anomaly_maps, **arguments)


def compare(model, datamodule, seed=0):
    return compare_with_normal(model.model.encoder, model.prepare, datamodule, seed)


@pytest.mark.parametrize("backbone", ["test_vit", "resnet10t"])
def test_the_encoder_compares_regions_with_normal_images(backbone, tiny_run):
    model, module = build(backbone), data(tiny_run, normal_images=tiny_run.images / "good")
    width = model.model.encoder.feature_dim
    held_out = compare(model, module)
    encoder = model.model.encoder
    assert encoder.normal_patches.is_fitted
    assert encoder.feature_dim == encoder.normal_patches.dim + 2 != width
    assert model.needs_whole_images
    assert held_out.shape[1] == encoder.feature_dim
    assert 50 < len(held_out) < 250  # of 300 regions, those of every other image
    found = NcdBatch.collate(model.encode(module))
    good = found.region_image_index < 6
    lengths, novelty = NormalPatches.lengths(found.region_feature), found.region_feature[:, -2]
    assert lengths[good].max() < lengths[~good].min()
    assert novelty[good].max() < novelty[~good].min()
    assert NormalPatches.lengths(held_out).median() < lengths[~good].min()
    assert (held_out[:, -2] <= novelty.min()).all()  # they count as seen


def test_regions_alone_are_not_enough_then(tiny_run):
    model, module = build(), data(tiny_run, normal_images=tiny_run.images / "good")
    compare(model, module)
    module.prepare_for(model.inputs)
    batch = next(iter(module.test_dataloader()))
    with pytest.raises(ValueError, match="give them as `whole`"):
        model.describe_regions(batch.image, batch.region_mask)[0]
    assert model.describe_regions(batch.image, batch.region_mask, batch.region_whole_image)[0].isfinite().all()


def test_without_normal_images_nothing_changes(tiny_run):
    model = build()
    assert compare(model, data(tiny_run)) is None
    assert not model.model.encoder.normal_patches.is_fitted


def test_a_single_normal_image_has_no_other_to_be_compared_with(tiny_run):
    model = build()
    held_out = compare_with_normal(
        model.model.encoder, model.prepare, data(tiny_run, normal_images=tiny_run.images / "good" / "000.png")
    )
    assert held_out.shape == (0, 66)
    assert model.model.encoder.normal_patches.is_fitted
    assert not model.needs_whole_images


def test_the_seed_decides(tiny_run):
    patches = []
    for seed in (3, 3, 4):
        model = build()
        compare_with_normal(
            model.model.encoder, model.prepare, data(tiny_run, normal_images=tiny_run.images / "good"), seed
        )
        patches.append(model.model.encoder.normal_patches.patches)
    assert torch.equal(patches[0], patches[1])
    assert not torch.equal(patches[0], patches[2])
