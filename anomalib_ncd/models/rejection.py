# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""What a model knows of the regions it was made from, to tell when a new one is unlike all of them: *unknown*.

The threshold comes from the run's own regions, each compared with those of the other images alone, so that it holds for
new regions (conformal prediction, Vovk et al., "Algorithmic Learning in a Random World", 2005).
"""

import logging
import math

import numpy as np
import torch
from anomalib.models.components import DynamicBufferMixin
from torch import Tensor
from torch.nn import functional as F

from anomalib_ncd.models.clustering.clustering import left_out_similarity, neighbour_similarity, unit_rows

logger = logging.getLogger(__name__)

MAX_REFERENCES = 10_000
SMALLEST_SCALE = 1e-6
LARGEST_THRESHOLD = 0.999  # a region that a run has twice must not be unknown for rounding


class RegionRejection(DynamicBufferMixin):
    """Keeps the features of a run's regions; a region that is far from the nearest of them is unknown.

    Features are scaled to norm 1 and standardised over the run. They are compared by their cosine, with a constant of
    the usual norm with them, so that a feature far from all of the run's is far whatever its direction. The nearest
    region counts (k = 1 of Sun et al., ICML 2022), for a class may have few regions.

    All that is fitted lies in buffers; the threshold follows from them and the rate, which can be changed at any time.
    At most a share of ``false_reject_rate`` of new regions of known classes is called unknown; with ``None`` none ever
    is. ``ValueError`` for a rate that isn't above 0 and below 1.
    """

    def __init__(self, false_reject_rate: float | None = 0.02) -> None:
        super().__init__()
        if false_reject_rate is not None:
            check_false_reject_rate(false_reject_rate)
        self.false_reject_rate = false_reject_rate
        self.register_buffer("centre", torch.zeros(0))
        self.register_buffer("scale", torch.zeros(0))
        self.register_buffer("references", torch.zeros(0, 0))
        self.register_buffer("groups", torch.zeros(0, dtype=torch.long))
        self.register_buffer("left_out_similarity", torch.zeros(0))
        self.centre: Tensor
        self.scale: Tensor
        self.references: Tensor
        self.groups: Tensor
        self.left_out_similarity: Tensor

    @property
    def is_fitted(self) -> bool:
        """Whether the regions of a run are known."""
        return len(self.left_out_similarity) > 0

    @property
    def threshold(self) -> float | None:
        """Similarity below which a region is unknown; ``None`` where nothing is rejected."""
        if self.false_reject_rate is None or not self.is_fitted:
            return None
        threshold = rejection_threshold(self.left_out_similarity.cpu().numpy(), self.false_reject_rate)
        return min(threshold, LARGEST_THRESHOLD)

    def fit(self, features: Tensor, groups: Tensor) -> None:
        """Take over the features ``(N, D)``, of any norm, of a run's regions in place of those known before.

        Regions of one group ``(N,)``, which are those of one image, are not compared with each other.
        """
        features = features.detach().to(self.references.device)
        rows = unit_rows(features.float())
        self.centre = rows.mean(dim=0)
        self.scale = (rows - self.centre).square().mean(dim=0).sqrt().clamp(min=SMALLEST_SCALE)
        self._keep(self.directions(features), groups)

    def extend(self, features: Tensor, groups: Tensor) -> None:
        """Add regions of other images to those known before; arguments as :meth:`fit`."""
        if not self.is_fitted:
            self.fit(features, groups)
            return
        rows = self.directions(features.detach().to(self.references.device))
        groups = groups.to(self.groups.device).long() + self.groups.max() + 1
        self._keep(torch.cat([self.references, rows]), torch.cat([self.groups, groups]))

    def forward(self, features: Tensor) -> Tensor:
        """Similarity ``(R,)`` of features ``(R, D)`` to the nearest region of the run; 1 where none is known."""
        if not self.is_fitted:
            return features[:, 0].float() * 0 + 1
        return neighbour_similarity(self.directions(features), self.references)

    def is_unknown(self, features: Tensor) -> Tensor:
        """Which of the features ``(R, D)`` are unlike all of the run, ``(R,)`` bool, on their device."""
        threshold = self.threshold
        if threshold is None:
            return torch.zeros(len(features), dtype=torch.bool, device=features.device)
        return (self(features.to(self.references.device)) < threshold).to(features.device)

    def directions(self, features: Tensor) -> Tensor:
        """What is compared of features ``(R, E)``: ``(R, E + 1)`` of norm 1."""
        standard = (unit_rows(features.float()) - self.centre) / self.scale
        return unit_rows(F.pad(standard, (0, 1), value=math.sqrt(standard.shape[1])))

    def _keep(self, references: Tensor, groups: Tensor) -> None:
        """Take over references; of too many, every n-th."""
        step = max(1, -(-len(references) // MAX_REFERENCES))
        self.references = references[::step].contiguous()
        self.groups = groups.to(references.device).long()[::step].contiguous()
        self.left_out_similarity = left_out_similarity(self.references, self.groups)
        if self.false_reject_rate is None or not self.is_fitted:
            return
        attained = attained_false_reject_rate(len(self.references), self.false_reject_rate)
        if attained > self.false_reject_rate:
            logger.warning(
                "With %d regions, up to %.2g %% of new regions of known classes will be called unknown, not %.2g %%.",
                len(self.references),
                attained * 100,
                self.false_reject_rate * 100,
            )


def rejection_threshold(similarities: np.ndarray, false_reject_rate: float) -> float:
    """Similarity below which at most a given share of new regions of known classes lies.

    With n similarities in ascending order it is the one at place ⌊rate · (n + 1)⌋. With too few of them for the rate it
    is the smallest, and the rate is 1 / (n + 1). `similarities` ``(n,)`` are of each region of the run to the others,
    itself and its image left out; ``ValueError`` without any, for NaN, or for a rate that is not above 0 and below 1.
    """
    check_false_reject_rate(false_reject_rate)
    values = np.sort(np.asarray(similarities, dtype=np.float64).ravel())
    if not values.size or np.isnan(values).any():
        msg = f"`similarities` must hold numbers, one or more, got {similarities}; compare the regions of a run."
        raise ValueError(msg)
    # Rounded first, for 0.07 * 100 is 7.000000000000001.
    place = max(1, math.floor(round(false_reject_rate * (len(values) + 1), 9)))
    return float(values[min(place, len(values)) - 1])


def attained_false_reject_rate(num_similarities: int, false_reject_rate: float) -> float:
    """The rate that :func:`rejection_threshold` promises for n regions: 1 / (n + 1) at least."""
    return max(false_reject_rate, 1 / (num_similarities + 1))


def check_false_reject_rate(false_reject_rate: float) -> None:
    """Raise ``ValueError`` for a rate that is not above 0 and below 1."""
    if not 0 < false_reject_rate < 1:
        msg = f"`false_reject_rate` must be above 0 and below 1, got {false_reject_rate}; None rejects nothing."
        raise ValueError(msg)
