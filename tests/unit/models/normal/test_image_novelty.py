# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from torch.nn import functional as F

from anomalib_ncd.models.normal import image_novelty
from anomalib_ncd.models.normal.image_novelty import ImageNovelty

DIM, PLACES = 6, 16


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def normal_images(count=30):
    """Images whose places differ from each other, as those of real parts do."""
    return random(PLACES, DIM, seed=1) * 3 + random(count, PLACES, DIM, seed=2) * 0.3


def novelty(module, images):
    return module(images).norm(dim=1)


@pytest.fixture
def fitted():
    module = ImageNovelty(DIM)
    module.fit(normal_images().split(8), num_images=30)
    return module


def test_images_like_normal_ones_are_not_novel(fitted):
    others = random(PLACES, DIM, seed=1) * 3 + random(100, PLACES, DIM, seed=3) * 0.3
    assert (novelty(fitted, others) < 0.5).float().mean() > 0.8
    assert (novelty(fitted, normal_images()) < 0.01).all()  # it has seen these


def test_one_strange_patch_is_novel(fitted):
    images = random(PLACES, DIM, seed=1) * 3 + random(10, PLACES, DIM, seed=3) * 0.3
    images[:, 5] += 4
    assert (novelty(fitted, images) > 0.9).all()


def test_what_is_a_little_wrong_everywhere_is_novel(fitted):
    """Its mean distance is farther from that of normal images than its largest one is."""
    images = random(PLACES, DIM, seed=1) * 3 + random(100, PLACES, DIM, seed=3) * 0.3
    shifted = images + 0.3
    assert (novelty(fitted, shifted) > 0.5).float().mean() > 0.9
    largest, mean = ((fitted._distances(shifted) - fitted.middle) / fitted.softness).unbind(dim=1)
    assert (mean > largest).float().mean() > 0.9


def test_by_hand(fitted):
    image = random(1, PLACES, DIM, seed=9)
    standard = (image[0] - fitted.single.centre) / fitted.single.scale
    largest = torch.cdist(standard, fitted.single.patches).amin(dim=1).max() / DIM**0.5
    grid = image[0].view(4, 4, DIM)
    smooth = torch.stack(
        [grid[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].mean((0, 1)) for y in (0, 2) for x in (0, 2)]
    )
    standard = (smooth - fitted.smooth.centre) / fitted.smooth.scale
    mean = torch.cdist(standard, fitted.smooth.patches).amin(dim=1).mean() / DIM**0.5
    spread = fitted.softness / 0.5
    spreads = (torch.stack([largest, mean]).log() - (fitted.middle - 1.5 * spread)) / spread
    expected = ((spreads.max() - 1.5) / 0.5).sigmoid() * F.normalize(
        fitted.normal(image[:, None], torch.ones(1, 1, PLACES, 1))[:, 0]
    )
    torch.testing.assert_close(fitted(image), expected, atol=1e-4, rtol=1e-3)


def test_a_normal_image_is_measured_by_the_others():
    """Else the usual distance would be none."""
    module = ImageNovelty(DIM)
    module.fit([normal_images()], num_images=30)
    assert (module.middle.exp() > 0.05).all()


def test_memories_are_bounded_and_images_share_them(monkeypatch):
    monkeypatch.setattr(image_novelty, "MAX_PATCHES", 60)
    module = ImageNovelty(DIM)
    module.fit(normal_images().split(7), num_images=30)
    assert len(module.single.patches) == 60
    assert len(module.smooth.patches) == 60


def test_the_seed_decides(monkeypatch):
    monkeypatch.setattr(image_novelty, "MAX_PATCHES", 60)
    modules = [ImageNovelty(DIM) for _ in range(3)]
    for module, seed in zip(modules, (3, 3, 4), strict=True):
        module.fit([normal_images()], num_images=30, seed=seed)
    assert torch.equal(modules[0].single.patches, modules[1].single.patches)
    assert not torch.equal(modules[0].single.patches, modules[2].single.patches)


def test_one_image_alone_tells_nothing(fitted):
    fitted.fit([normal_images(1)], num_images=1)
    torch.testing.assert_close(novelty(fitted, normal_images(4) + 1), torch.full((4,), 0.5))


def test_equal_images_do_no_harm():
    module = ImageNovelty(DIM)
    module.fit([normal_images(1).expand(4, -1, -1)], num_images=4)
    assert module(normal_images()).isfinite().all()


def test_batches_are_their_images(fitted):
    images = random(20, PLACES, DIM, seed=5)
    one_by_one = torch.cat([fitted(image[None]) for image in images])
    torch.testing.assert_close(fitted(images), one_by_one, atol=1e-4, rtol=1e-4)
    assert fitted(images[:0]).shape == (0, DIM)


def test_the_graph_computes_the_same(fitted):
    images = normal_images(4) + random(4, 1, 1, seed=4)
    batch = torch.export.Dim("batch", min=1, max=16)
    graph = torch.export.export(fitted, (images[:2],), dynamic_shapes=({0: batch},)).module()
    torch.testing.assert_close(graph(images), fitted(images), atol=1e-4, rtol=1e-4)


def test_a_state_of_any_size_loads(fitted):
    images, fresh = random(3, PLACES, DIM), ImageNovelty(DIM)
    wanted = fitted(images)
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(fresh(images), wanted)
    fresh.load_state_dict(ImageNovelty(DIM).state_dict())
    with pytest.raises(RuntimeError, match="No normal images are known yet; fit them, or load a checkpoint"):
        fresh(images)


@pytest.mark.parametrize("shape", [(2, PLACES, DIM + 1), (2, PLACES - 1, DIM), (PLACES, DIM)])
def test_patches_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="with a square N"):
        ImageNovelty(DIM).fit([torch.zeros(shape)], num_images=2)


def test_example_of_image_novelty():
    novelty = ImageNovelty(dim=2)
    normal = torch.rand(20, 9, 2, generator=torch.Generator().manual_seed(0))
    novelty.fit([normal], num_images=20)
    assert torch.equal(novelty(torch.stack([normal[0], normal[0] + 3])).norm(dim=1).round(), torch.tensor([0.0, 1.0]))
