# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""Region merging: from the class probabilities of regions to those of their images.

The larger a region, the more it says about its image: "AnomalyNCD" (Huang et al., CVPR 2025, arXiv 2410.14379), section
on region merging.
"""

import torch


def novel_probabilities(logits: torch.Tensor, num_base_classes: int, temperature: float = 0.1) -> torch.Tensor:
    """Probabilities of the novel classes, given that the class is a novel one.

    The softmax without its base columns, renormalised, is the softmax over the novel logits alone.

    Args:
        logits: ``(..., C)`` float, base classes first.
        num_base_classes: Number of base classes, from 0 to C - 1.
        temperature: Divides the logits. 0.1 in the paper.

    Returns:
        ``(..., C - num_base_classes)``, each row sums to 1.

    Raises:
        ValueError: If the number of base classes or the temperature is out of range.

    Example:
        >>> novel_probabilities(torch.tensor([9.0, 0.1, 0.1]), num_base_classes=1)
        tensor([0.5000, 0.5000])
    """
    num_classes = logits.shape[-1] if logits.ndim else 0
    if not 0 <= num_base_classes < num_classes:
        msg = (
            f"`num_base_classes` must be from 0 to C - 1 for `logits` of shape (..., C), got {num_base_classes} and "
            f"{tuple(logits.shape)}; a head has an output for each base and each novel class."
        )
        raise ValueError(msg)
    if temperature <= 0:
        msg = f"`temperature` must be positive, got {temperature}; 0.1 is the paper's."
        raise ValueError(msg)
    return (logits[..., num_base_classes:] / temperature).softmax(dim=-1)


def merge_regions(
    probabilities: torch.Tensor,
    areas: torch.Tensor,
    image_index: torch.Tensor,
    temperature: float | torch.Tensor,
    num_images: int | None = None,
) -> torch.Tensor:
    """Merge the class probabilities of the regions of each image.

    The mean over an image's regions, weighted by the softmax of the square root of their area over the temperature.

    Args:
        probabilities: ``(R, ..., K)`` float.
        areas: ``(R,)``, 0 or more, in pixels.
        image_index: ``(R,)`` integer, from 0 to `num_images` - 1: the image that a region belongs to. Any order.
        temperature: In pixels, as side length; one for all images, or ``(num_images,)`` one for each. The higher, the
            less area matters. 100 in the paper for MVTec AD, 50 for MTD.
        num_images: Number of images; by default one more than the highest index.

    Returns:
        ``(num_images, ..., K)``.

    Raises:
        ValueError: If shapes do not agree, an index or a value is out of range, or an image has no region.

    Example:
        >>> probabilities = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
        >>> merge_regions(probabilities, torch.tensor([16, 16, 9]), torch.tensor([0, 0, 1]), temperature=50)
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """
    num_images = _check_regions(probabilities, areas, image_index, num_images)
    image_index = image_index.long()
    temperatures = torch.as_tensor(temperature, dtype=torch.float32, device=areas.device)
    if temperatures.ndim and temperatures.shape != (num_images,):
        msg = (
            f"`temperature` must be a number or have shape ({num_images},), got {tuple(temperatures.shape)}; "
            f"pass one temperature for all images, or one for each."
        )
        raise ValueError(msg)
    if not (temperatures > 0).all():
        msg = f"`temperature` must be positive, got {temperature}; 50 to 100 are the paper's."
        raise ValueError(msg)
    weights = _area_weights(areas, image_index, temperatures.expand(num_images))
    weights = weights.to(probabilities.dtype).reshape(-1, *[1] * (probabilities.ndim - 1))
    merged = probabilities.new_zeros(num_images, *probabilities.shape[1:])
    return merged.index_add(0, image_index, probabilities * weights)


def _area_weights(areas: torch.Tensor, image_index: torch.Tensor, temperatures: torch.Tensor) -> torch.Tensor:
    """Softmax of √area / T over the regions of each image, ``(R,)`` float32."""
    scaled = areas.float().sqrt() / temperatures[image_index]
    # Less the largest of the image, so that no exponential overflows.
    largest = scaled.new_zeros(len(temperatures)).scatter_reduce(0, image_index, scaled, reduce="amax")
    exponentials = (scaled - largest[image_index]).exp()
    totals = scaled.new_zeros(len(temperatures)).index_add(0, image_index, exponentials)
    return exponentials / totals[image_index]


def _check_regions(
    probabilities: torch.Tensor,
    areas: torch.Tensor,
    image_index: torch.Tensor,
    num_images: int | None,
) -> int:
    """Return the number of images, or raise where the regions do not fit them."""
    shapes = tuple(probabilities.shape), tuple(areas.shape), tuple(image_index.shape)
    if probabilities.ndim < 2 or areas.shape != probabilities.shape[:1] or image_index.shape != areas.shape:
        msg = (
            f"`probabilities`, `areas` and `image_index` must have shapes (R, ..., K), (R,) and (R,), got {shapes[0]}, "
            f"{shapes[1]} and {shapes[2]}; pass one row, area and index for each region."
        )
        raise ValueError(msg)
    if image_index.dtype not in {torch.int32, torch.int64}:
        msg = f"`image_index` must be int32 or int64, got {image_index.dtype}; call `image_index.long()`."
        raise ValueError(msg)
    if num_images is None:
        num_images = int(image_index.max()) + 1 if len(image_index) else 0
    if len(image_index) and not (image_index.min() >= 0 and image_index.max() < num_images):
        span = int(image_index.min()), int(image_index.max())
        msg = f"`image_index` must be from 0 to {num_images - 1}, got {span[0]} to {span[1]}; check `num_images`."
        raise ValueError(msg)
    if (areas < 0).any():
        msg = f"`areas` must be 0 or more, got {areas.min().item()}; count the pixels of each region's mask."
        raise ValueError(msg)
    has_region = torch.zeros(num_images, dtype=torch.bool, device=image_index.device)
    has_region[image_index.long()] = True
    if not has_region.all():
        missing = (~has_region).nonzero().flatten().tolist()
        msg = f"Each image must have a region, got none for image {missing}; give it the whole image as its region."
        raise ValueError(msg)
    return num_images


def relative_merging_temperature(image_size: torch.Tensor) -> torch.Tensor:
    """Temperature of region merging that grows with the image.

    The paper sets it by data set: 100 for MVTec AD, whose sides are around 900 pixels, and 50 for MTD, around 300. An
    eighth of the root of the image's area lies between the two.

    Args:
        image_size: ``(B, 2)``, height and width in pixels.

    Returns:
        ``(B,)`` float32.

    Example:
        >>> relative_merging_temperature(torch.tensor([[400, 400], [800, 800]]))
        tensor([ 50., 100.])
    """
    return image_size.float().prod(dim=1).sqrt() / 8
