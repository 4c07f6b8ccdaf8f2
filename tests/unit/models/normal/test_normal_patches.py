# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from anomalib_ncd.models.normal import normal_patches
from anomalib_ncd.models.normal.normal_patches import NormalPatches

DIM = 6


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def fitted():
    module = NormalPatches(DIM)
    module.fit(random(40, DIM, seed=1) * torch.tensor([1.0, 2, 3, 4, 5, 6]) + 7)
    return module


def described_by_hand(module, patches, share):
    """One region (N, D), patch by patch."""
    total, weights, longest = torch.zeros(DIM), 0.0, 0.0
    for patch, part in zip(patches, share.flatten().tolist(), strict=True):
        standard = (patch - module.centre) / module.scale
        distances = (standard - module.patches).square().sum(dim=1)
        nearness = torch.exp(-distances / (0.05 * DIM))
        residual = standard - (nearness[:, None] * module.patches).sum(dim=0) / nearness.sum()
        length = float(residual.norm()) / DIM**0.5
        total, weights = total + part * length**4 * residual, weights + part * length**4
        longest = max(longest, length if part else 0.0)
    mean_length = float(total.norm()) / weights / DIM**0.5
    return total / total.norm() * torch.tensor([[longest], [mean_length**0.5]])


def described(module, patches, share):
    """Regions of one view each, patches (B, N, D)."""
    return module(patches[:, None], share[:, None])


def test_regions_are_weighted_residuals_of_their_patches(fitted):
    patches, share = random(3, 5, DIM) + 7, random(3, 5, 1, seed=2).abs()
    share[1, 2:] = 0
    found = described(fitted, patches, share)
    for number in range(3):
        torch.testing.assert_close(found[number], described_by_hand(fitted, patches[number], share[number]))


def test_views_of_a_region_have_the_mean_direction_and_the_mean_lengths(fitted):
    patches, share = random(3, 2, 5, DIM) + 7, random(3, 2, 5, 1, seed=2).abs()
    views = torch.stack([described(fitted, patches[:, view], share[:, view]) for view in range(2)])
    lengths = views.norm(dim=3)
    found = fitted(patches, share)
    torch.testing.assert_close(found.norm(dim=2), lengths.mean(dim=0))
    mean = (views / lengths[..., None]).mean(dim=0)
    torch.testing.assert_close(found / found.norm(dim=2, keepdim=True), mean / mean.norm(dim=2, keepdim=True))


def test_normal_patches_are_standardised(fitted):
    torch.testing.assert_close(fitted.patches.mean(dim=0), torch.zeros(DIM), atol=1e-5, rtol=0)
    torch.testing.assert_close(fitted.patches.std(dim=0, correction=0), torch.ones(DIM))


def test_what_is_farther_from_normal_is_longer(fitted):
    normal = fitted.patches[:5] * fitted.scale + fitted.centre
    lengths = [
        described(fitted, (normal + step * fitted.scale)[:, None], torch.ones(5, 1, 1)).norm(dim=2)
        for step in (0, 2, 8)
    ]
    assert (lengths[0] < lengths[1]).all()
    assert (lengths[1] < lengths[2]).all()


def test_a_normal_patch_alone_is_nothing():
    module = NormalPatches(DIM)
    module.fit(100 * torch.eye(DIM))  # far from each other, so that each has itself alone for a neighbour
    assert described(module, 100 * torch.eye(DIM)[:, None], torch.ones(DIM, 1, 1)).abs().max() < 1e-3


def test_a_small_defect_in_a_large_mask_is_as_long_as_alone(fitted):
    normal = (fitted.patches[:8] * fitted.scale + fitted.centre)[None]
    defect = normal[:, :1] + 20 * fitted.scale
    alone = described(fitted, defect, torch.ones(1, 1, 1))
    surrounded = described(fitted, torch.cat([defect, normal], dim=1), torch.ones(1, 9, 1))
    torch.testing.assert_close(surrounded, alone, rtol=1e-3, atol=1e-3)


def test_patches_outside_do_not_matter(fitted):
    patches, share = random(2, 4, DIM), torch.tensor([1.0, 0, 0.5, 0]).repeat(2, 1)[..., None]
    changed = patches.clone()
    changed[:, [1, 3]] = 1e4
    torch.testing.assert_close(described(fitted, changed, share), described(fitted, patches, share))


def test_the_graph_computes_the_same(fitted):
    patches, share = random(4, 5, DIM), random(4, 5, 1, seed=3).clamp(min=0)
    share[0, 0] = 1
    batch = torch.export.Dim("batch", min=1, max=16)
    graph = torch.export.export(
        fitted, (patches[:2, None], share[:2, None]), dynamic_shapes=({0: batch}, {0: batch})
    ).module()
    torch.testing.assert_close(described(graph, patches, share), described(fitted, patches, share))


def test_no_region(fitted):
    assert described(fitted, torch.zeros(0, 5, DIM), torch.zeros(0, 5, 1)).shape == (0, 2, DIM)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(fitted, dtype):
    patches, share = (random(2, 4, DIM) + 7).to(dtype), torch.ones(2, 4, 1, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = described(fitted, patches, share)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, described(fitted, patches.float(), share.float()))


def test_of_too_many_patches_random_ones_are_kept(monkeypatch):
    monkeypatch.setattr(normal_patches, "MAX_NORMAL_PATCHES", 10)
    first, second, other = (NormalPatches(DIM) for _ in range(3))
    for module, seed in ((first, 3), (second, 3), (other, 4)):
        module.fit(random(50, DIM), seed)
        assert len(module.patches) == 10
    assert torch.equal(first.patches, second.patches)
    assert not torch.equal(first.patches, other.patches)
    torch.testing.assert_close(first.centre, random(50, DIM).mean(dim=0))  # of all


def test_dimensions_that_never_change_do_no_harm():
    module = NormalPatches(2)
    module.fit(torch.tensor([[1.0, 5.0], [2.0, 5.0]]))
    assert described(module, torch.tensor([[[1.5, 5.0]]]), torch.ones(1, 1, 1)).isfinite().all()


def test_a_state_of_any_size_loads(fitted):
    patches, share = random(2, 4, DIM), torch.ones(2, 4, 1)
    wanted, fresh = described(fitted, patches, share), NormalPatches(DIM)
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(described(fresh, patches, share), wanted)
    fresh.load_state_dict(NormalPatches(DIM).state_dict())
    with pytest.raises(RuntimeError, match="No normal patches are known yet; fit them, or load a checkpoint"):
        described(fresh, patches, share)


@pytest.mark.parametrize("patches", [torch.zeros(0, DIM), torch.zeros(3, DIM + 1), torch.zeros(DIM)])
def test_patches_that_do_not_fit_are_refused(patches):
    with pytest.raises(ValueError, match=r"`patches` must have shape \(P, 6\)"):
        NormalPatches(DIM).fit(patches)


def test_example_of_normal_patches():
    patches = NormalPatches(dim=2)
    patches.fit(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]]))
    found = described(patches, torch.tensor([[[0.0, 1.0]], [[3.0, 1.0]]]), torch.ones(2, 1, 1))[:, 0].norm(dim=1)
    torch.testing.assert_close(found, torch.tensor([0.0, 5**0.5]), atol=1e-4, rtol=0)
