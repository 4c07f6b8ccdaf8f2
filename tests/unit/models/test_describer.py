# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from anomalib_ncd import NcdDataModule
from anomalib_ncd.data.batches import ModelInputs
from anomalib_ncd.data.datasets import MAX_NORMAL_REGIONS
from anomalib_ncd.models import describer as describer_module
from anomalib_ncd.models.clustering.clustering import unit_rows
from anomalib_ncd.models.contrast import contrast
from anomalib_ncd.models.describer import (
    MIN_NORMAL_IMAGES,
    FrozenFeatures,
    NormalResiduals,
    SideBySide,
    build_describer,
    describer_for,
    refuse_training,
    with_networks_of,
)
from anomalib_ncd.models.encoders.base import RegionEncoder
from anomalib_ncd.models.encoders.build_encoder import build_encoder
from anomalib_ncd.regions.settings import RegionSettings

SIDE = 32


def build(kind="frozen_features", backbone="test_vit", **settings):
    torch.manual_seed(0)
    return build_describer(kind, backbone, pretrained=False, image_size=SIDE, **settings).eval()


def inputs(count=5):
    """Views, masks, and three images that they lie in."""
    generator = torch.Generator().manual_seed(1)
    views = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    masks = torch.zeros(count, 1, SIDE, SIDE)
    masks[:, :, 8:24, 4:20] = 1
    return views, masks, views[:3].flip(3) // 2, torch.tensor([2, 0, 0, 1, 2])[:count]


def fitted(backbone="test_vit", **settings):
    describer, (views, masks, whole, _) = build("normal_residuals", backbone, **settings), inputs()
    patches, share = describer._region_patches(views.flip(2), masks)
    describer.normal_patches.fit(patches[share[..., 0] > 0])
    describer.novelty.fit([describer._whole_patches(whole.flip(2))], num_images=3)
    return describer


def normal_data(run, name="good"):
    # Good images have a region as well, the whole of each.
    regions = RegionSettings(method="mebin", erosion_size=3)
    datamodule = NcdDataModule(run.images, run.anomaly_maps, normal_images=run.images / name, regions=regions)
    datamodule.prepare_for(ModelInputs(SIDE, whole_images=True))
    return datamodule, datamodule.normal_regions(MAX_NORMAL_REGIONS)


def fit(run, name="good", seed=0, backbone="test_vit"):
    datamodule, regions = normal_data(run, name)
    describer = build("normal_residuals", backbone)
    held_out = describer.fit(regions, [record.path for record in datamodule.normal_records], seed)
    return describer, held_out, datamodule


@pytest.mark.parametrize("kind", ["frozen_features", "plain_features", "normal_residuals"])
@pytest.mark.parametrize("backbone", ["test_vit", "resnet10t"])
def test_the_width_is_known_before_anything_is_fitted(kind, backbone):
    describer = build(kind, backbone)
    width = describer.feature_dim
    described = fitted(backbone) if kind == "normal_residuals" else describer
    assert described(*inputs()).feature.shape == (5, width)
    assert described.feature_dim == width
    assert described.image_size == SIDE


def test_pixels_are_normalised_as_the_backbone_wants_them():
    describer = build(backbone="resnet10t")
    views = inputs()[0]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (views / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(describer.normalised(views), expected)


@torch.no_grad()
def test_frozen_features_are_those_of_the_encoder():
    describer, (views, masks, *whole) = build(), inputs()
    assert isinstance(describer, FrozenFeatures)
    assert not describer.needs_whole_images
    frozen = describer.encoder.frozen(describer.normalised(views), masks)
    feature, rejection_feature, appearance = describer(views, masks)
    torch.testing.assert_close(feature, describer.encoder.trained(frozen))
    torch.testing.assert_close(rejection_feature, describer.encoder.reference(frozen))
    assert torch.equal(appearance, rejection_feature)
    assert torch.equal(describer(views, masks, *whole).feature, feature)


@pytest.mark.parametrize("describe", [build, fitted])
@torch.no_grad()
def test_regions_pass_in_bounded_numbers(describe, monkeypatch):
    describer, given, sizes = describe(), inputs(), []
    expected = describer(*given)
    encoder = describer.encoder
    for name in ("frozen", "region_patches"):
        original = getattr(encoder, name)
        monkeypatch.setattr(encoder, name, lambda *args, run=original: sizes.append(len(args[0])) or run(*args))
    monkeypatch.setattr(describer_module, "REGIONS_PER_PASS", 2)
    for found, wanted in zip(describer(*given), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    views_a_region = 2 if describer.needs_whole_images else 1
    assert sizes == [size for size in (2, 2, 1) for _ in range(views_a_region)]


@pytest.mark.parametrize("backbone", ["test_vit", "resnet10t"])
@torch.no_grad()
def test_residuals_of_region_and_image_contrast_and_a_constant_make_the_feature(backbone):
    describer, (views, masks, whole, image_index) = fitted(backbone), inputs()
    describer.usual_length.fill_(2.0)
    assert isinstance(describer, NormalResiduals)
    assert describer.needs_whole_images
    patches, shares = describer._region_patches(views, masks)
    rows = describer.normal_patches(patches, shares)
    novelty = describer.novelty(describer.encoder.whole_patches(describer.normalised(whole)))[image_index]
    parts = describer(views, masks, whole, image_index).feature.split([rows.shape[2]] * 2 + [1, 1], dim=1)
    own, image, light, constant = parts
    lengths = rows[:, 0].norm(dim=1)
    torch.testing.assert_close(own.norm(dim=1), lengths / (lengths + 2))
    torch.testing.assert_close(F.normalize(own, dim=1), F.normalize(rows[:, 0], dim=1))
    torch.testing.assert_close(image, novelty * 0.7)
    assert torch.equal(light, contrast(views, masks) * 0.5)
    assert torch.equal(constant, torch.full((5, 1), 0.7))
    _, rejection_feature, appearance = describer(views, masks, whole, image_index)
    assert torch.equal(rejection_feature, torch.cat([rows[:, 1], torch.full((5, 1), 1.5)], dim=1))
    rows = zip(patches.flatten(1, 2), shares.flatten(1), strict=True)
    means = [np.average(one, axis=0, weights=share) for one, share in rows]
    np.testing.assert_allclose(appearance, means, atol=1e-5)


@pytest.mark.parametrize("backbone", ["test_vit", "resnet10t"])
@torch.no_grad()
def test_a_scratch_along_rows_is_compared_as_one_along_columns(backbone):
    describer, (views, masks, whole, image_index) = fitted(backbone), inputs()
    expected = describer(views, masks, whole, image_index)
    turned = describer(views.transpose(2, 3), masks.transpose(2, 3), whole, image_index)
    for found, wanted in zip(turned, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    plain = build("frozen_features", backbone)
    assert not torch.allclose(plain(views.transpose(2, 3), masks.transpose(2, 3)).feature, plain(views, masks).feature)


@torch.no_grad()
def test_an_image_is_looked_at_once_and_shared_by_its_regions(monkeypatch):
    describer, (views, masks, whole, image_index) = fitted(), inputs()
    alone = [
        describer(views[row][None], masks[row][None], whole[[image]], torch.tensor([0])).feature
        for row, image in enumerate(image_index.tolist())
    ]
    seen, original = [], describer.encoder.whole_patches
    monkeypatch.setattr(describer.encoder, "whole_patches", lambda images: seen.append(len(images)) or original(images))
    torch.testing.assert_close(
        describer(views, masks, whole, image_index).feature, torch.cat(alone), atol=1e-4, rtol=1e-4
    )
    assert seen == [3]


@pytest.mark.parametrize("describe", [build, fitted])
@torch.no_grad()
def test_the_graph_computes_the_same(describe):
    describer, given = describe(), inputs()
    regions, images = torch.export.Dim("regions", min=1, max=16), torch.export.Dim("images", min=1, max=16)
    shapes = ({0: regions}, {0: regions}, {0: images}, {0: regions})
    example = (given[0][:3], given[1][:3], given[2][:2], torch.tensor([0, 1, 1]))
    if not describer.needs_whole_images:
        given, shapes, example = given[:2], shapes[:2], example[:2]
    graph = torch.export.export(describer, example, dynamic_shapes=shapes).module()
    for found, wanted in zip(graph(*given), describer(*given), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("describe", [build, fitted])
def test_no_region(describe):
    views, masks, whole, image_index = inputs()
    described = describe(backbone="resnet10t")(views[:0], masks[:0], whole, image_index[:0])
    assert all(len(part) == 0 for part in described)


def test_whole_images_are_asked_for():
    with pytest.raises(ValueError, match="give these as `whole_images`, and as `image_index`"):
        fitted()(*inputs()[:2])


def test_few_normal_images_are_not_compared_with():
    found = [describer_for(number) for number in (0, MIN_NORMAL_IMAGES - 1, MIN_NORMAL_IMAGES)]
    assert found == ["plain_features", "plain_features", "normal_residuals"]


@pytest.mark.parametrize("backbone", ["test_vit", "test_vit+resnet10t"])
def test_another_kind_has_the_same_networks(backbone):
    describer = build(backbone=backbone)
    networks = [part for part in describer.modules() if isinstance(part, RegionEncoder)]
    for kind in ("plain_features", "normal_residuals", "frozen_features"):
        describer = with_networks_of(describer, kind)
        found = [part for part in describer.modules() if isinstance(part, RegionEncoder)]
        assert [id(network) for network in found] == [id(network) for network in networks]
        assert describer.needs_whole_images == (kind == "normal_residuals")
        assert bool(describer.why_untrained) == (kind != "frozen_features" or len(networks) > 1)
    with pytest.raises(ValueError, match=r"`describer` must be one of .* got 'nonsense'"):
        with_networks_of(describer, "nonsense")


@torch.no_grad()
def test_plain_features_are_the_mean_direction_of_both_orientations():
    describer, (views, masks, *_) = build("plain_features", "resnet10t"), inputs()
    one = FrozenFeatures(describer.encoder)
    turned = views.transpose(2, 3), masks.transpose(2, 3)
    plain = describer(views, masks)
    assert torch.equal(plain.feature[:, -1:], contrast(views, masks) * 0.5)
    plain = plain._replace(feature=plain.feature[:, :-1])
    for found, rows, other in zip(plain, one(views, masks), one(*turned), strict=True):
        expected = unit_rows(rows) + unit_rows(other)
        torch.testing.assert_close(found, unit_rows(expected), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found)))
    for found, again in zip(describer(*turned), describer(views, masks), strict=True):
        torch.testing.assert_close(found, again, atol=1e-5, rtol=1e-5)


def test_without_normal_images_there_is_nothing_to_compare_with():
    with pytest.raises(RuntimeError, match="No normal patches are known yet"):
        build("normal_residuals")(*inputs())


@pytest.mark.parametrize("networks", [("test_vit",), ("test_vit", "resnet10t")])
def test_what_is_not_trained_has_no_gradient(networks):
    describer = fitted() if len(networks) == 1 else side_by_side()
    assert not any(rows.requires_grad for rows in describer(*inputs()))
    assert build()(*inputs()).feature.requires_grad


@pytest.mark.parametrize("backbone", ["test_vit", "resnet10t"])
def test_a_network_that_is_compared_with_can_be_trained_afterwards(backbone):
    def trained(describer):
        return [name for name, parameter in describer.encoder.named_parameters() if parameter.requires_grad]

    describer = build("frozen_features", backbone)
    expected = trained(describer)
    again = with_networks_of(with_networks_of(describer, "normal_residuals"), "frozen_features")
    assert trained(again) == expected != []


def test_a_state_of_a_fitted_describer_loads_into_a_new_one(tmp_path):
    describer, other = fitted(), build("normal_residuals")
    torch.save(describer.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for found, wanted in zip(other(*inputs()), describer(*inputs()), strict=True):
        assert torch.equal(found, wanted)
    other.load_state_dict(build("normal_residuals").state_dict())  # and one that isn't fitted
    with pytest.raises(RuntimeError, match="No normal patches are known yet"):
        other(*inputs())


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"`describer` must be one of .*'frozen_features'.* got 'both'"):
        build("both")


@pytest.mark.parametrize("backbone", ["test_vit", "resnet10t"])
@torch.no_grad()
def test_regions_of_normal_images_are_nearer_than_defects(tiny_run, backbone):
    describer, held_out, datamodule = fit(tiny_run, backbone=backbone)
    assert held_out.shape[1] == describer.feature_dim
    assert 50 < len(held_out) < 250  # of 300 regions, those of every other image
    [batch] = datamodule.test_dataloader()
    found = describer(batch.image, batch.region_mask, batch.whole_image, batch.region_image_index)
    good, dim = batch.region_image_index < 6, describer.normal_patches.dim
    for lengths in (found.rejection_feature.norm(dim=1), found.feature[:, :dim].norm(dim=1)):
        assert lengths[good].max() < lengths[~good].min()
    novelty = found.feature[:, dim : 2 * dim].norm(dim=1)
    assert novelty[good].max() < novelty[~good].min()
    assert held_out[:, :dim].norm(dim=1).median() < found.feature[:, :dim].norm(dim=1)[~good].min()
    assert not held_out[:, dim : 2 * dim].any()  # they count as seen
    own = held_out[:, :dim].norm(dim=1)
    torch.testing.assert_close(own.quantile(0.5), torch.tensor(0.5), atol=1e-3, rtol=0)  # the usual length


def test_a_single_normal_image_has_no_other_to_be_compared_with(tiny_run):
    describer, held_out, _ = fit(tiny_run, "good/000.png")
    assert held_out.shape == (0, describer.feature_dim)
    assert describer.usual_length == 1
    dim = describer.normal_patches.dim
    novelty = describer(*inputs()).feature[:, dim : 2 * dim].norm(dim=1)
    torch.testing.assert_close(novelty, torch.full((5,), 0.35))  # half novel, all of them


def test_copies_of_one_flat_image_are_compared_as_well(tiny_run, tmp_path):
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((64, 64, 3), 128, np.uint8))
    datamodule = NcdDataModule(tiny_run.images, tiny_run.anomaly_maps, normal_images=tmp_path)
    datamodule.prepare_for(ModelInputs(SIDE, whole_images=True))
    describer = build("normal_residuals", "resnet10t")
    held_out = describer.fit(datamodule.normal_regions(8), [record.path for record in datamodule.normal_records])
    assert held_out.isfinite().all()
    flat, masks = torch.full((1, 3, SIDE, SIDE), 128, dtype=torch.uint8), torch.ones(1, 1, SIDE, SIDE)
    assert describer(flat, masks, flat, torch.tensor([0])).feature.isfinite().all()


def test_the_seed_decides(tiny_run):
    first, second, other = (fit(tiny_run, seed=seed)[0].normal_patches.patches for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def side_by_side(kind="frozen_features", backbone="test_vit+resnet10t"):
    torch.manual_seed(0)
    return build_describer(kind, backbone, pretrained=False, image_size=SIDE).eval()


@torch.no_grad()
def test_networks_side_by_side_count_alike():
    describer, (views, masks, *_) = side_by_side(), inputs()
    found = describer(views, masks)
    assert found.feature.shape == (5, describer.feature_dim)
    for block, *own in zip(found, *(part(views, masks) for part in describer.parts), strict=True):
        torch.testing.assert_close(block, torch.cat([F.normalize(one, dim=1) for one in own], dim=1))


@torch.no_grad()
def test_networks_side_by_side_compare_with_normal_images(tiny_run):
    describer, (datamodule, regions) = side_by_side("normal_residuals"), normal_data(tiny_run)
    held_out = describer.fit(regions, [record.path for record in datamodule.normal_records])
    assert held_out.shape[1] == describer.feature_dim
    [batch] = datamodule.test_dataloader()
    given = batch.image, batch.region_mask, batch.whole_image, batch.region_image_index
    for block, *own in zip(describer(*given), *(part(*given) for part in describer.parts), strict=True):
        assert torch.equal(block, torch.cat(own, dim=1))


def test_networks_side_by_side_are_not_trained():
    with pytest.raises(ValueError, match="Networks side by side are for clusters; give one `backbone` to train"):
        refuse_training(None, side_by_side(), [])


def test_networks_side_by_side_see_views_of_one_size():
    built = [("test_vit", 32), ("resnet10t", 64)]
    parts = [
        build_describer("frozen_features", backbone, pretrained=False, image_size=size) for backbone, size in built
    ]
    with pytest.raises(ValueError, match=r"see views of one size, got \[32, 64\] pixels; give one `image_size`"):
        SideBySide(parts)


def test_example_of_frozen_features():
    describer = FrozenFeatures(build_encoder("test_vit", pretrained=False, image_size=32))
    views, masks = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.ones(2, 1, 32, 32)
    assert describer(views, masks).feature.shape == (2, describer.feature_dim)
