# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""How AnomalyNcd encodes and learns; no torch, so that the command knows its flags at once."""

from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, Literal

AUTO_CACHED_VIEWS = 8
MIN_NORMAL_IMAGES = 12  # that regions are compared with; what fewer show of normal is too little, see docs/research
DETECTOR_FILE = "detector/model.ckpt"
"""Checkpoint, in the folder of a run, of the detector that the run has fitted itself."""


@dataclass(frozen=True)
class TrainingSettings:
    """Constants of the encoder, the losses and the optimiser.

    The defaults are the paper's, but for ``feature_layers``, ``empty_mask``, ``prototypes``, ``contrastive``,
    ``num_cached_views`` and ``merging_temperature``; :data:`PAPER` has the paper's values.

    Attributes:
        mask_layers: Number of last blocks in which the class token sees the masked patches alone.
        trainable_blocks: Number of last blocks that are trained.
        feature_layers: Number of last blocks, or stages of a convolutional network, that make up a region's feature;
            1 in the paper. ``None``: a quarter of them.
        empty_mask: What the class token sees where no patch is half covered by the mask: ``"region"`` the patches
            that the mask touches, or all of them; ``"cls"`` itself alone, as in the authors' code.
        num_heads: Number of classification heads, of which the best one predicts.
        prototypes: Where the novel classes start: ``"clusters"`` of the frozen features, or ``"random"``, as in the
            paper.
        num_cached_views: Views per region whose frozen features are computed once and kept; an order of magnitude
            faster on a CPU, with scores within the seeds' spread. ``None``: fresh views in every epoch, as in the
            paper. ``"auto"``: 8 on a CPU, fresh ones on an accelerator.
        merging_temperature: T of region merging. The paper uses 100 for MVTec AD and 50 for MTD. ``None``: an eighth
            of the root of the image's area.
        learning_rate: Initial learning rate of SGD; falls to a thousandth along a cosine.
        momentum: Momentum of SGD.
        weight_decay: Weight decay, not on biases and other vectors.
        contrastive: Whether the two contrastive losses are learnt, as in the paper.
        supervised_weight: Share of the losses on base classes.
        mean_entropy_weight: Weight of the mean-entropy term.
        normal_threshold: Region score below which pseudo-labels are drawn towards *normal*; ``None`` for none.

    Raises:
        ValueError: If views are kept that training or the mask would change, or a choice is unknown.
    """

    mask_layers: int = 9
    trainable_blocks: int = 1
    feature_layers: int | None = None
    empty_mask: Literal["region", "cls"] = "region"
    num_heads: int = 4
    prototypes: Literal["clusters", "random"] = "clusters"
    num_cached_views: int | Literal["auto"] | None = "auto"
    merging_temperature: float | None = None
    learning_rate: float = 0.003
    momentum: float = 0.9
    weight_decay: float = 5e-5
    contrastive: bool = False
    supervised_weight: float = 0.3
    mean_entropy_weight: float = 4.0
    normal_threshold: float | None = 0.5

    def cached_views_on(self, device_type: str) -> int | None:
        """Views per region that are kept where the model runs on a device of a type, such as ``"cpu"``."""
        if self.num_cached_views != "auto":
            return self.num_cached_views
        can_keep = self.trainable_blocks == 1 and self.mask_layers > 0
        return AUTO_CACHED_VIEWS if device_type == "cpu" and can_keep else None

    @property
    def of_encoder(self) -> dict[str, Any]:
        """Those of the encoder, by name."""
        names = ("mask_layers", "trainable_blocks", "feature_layers", "empty_mask")
        return {name: getattr(self, name) for name in names}

    def __post_init__(self) -> None:
        """Refuse settings that don't go together."""
        keeps = isinstance(self.num_cached_views, int)
        if not keeps and self.num_cached_views not in {None, "auto"}:
            msg = f"`num_cached_views` must be a number, None or 'auto', got {self.num_cached_views!r}."
            raise ValueError(msg)
        if keeps and self.trainable_blocks != 1:
            msg = f"`num_cached_views` needs `trainable_blocks=1`, got {self.trainable_blocks}; set it to None."
            raise ValueError(msg)
        if keeps and self.mask_layers < 1:
            msg = f"`num_cached_views` keeps what a mask shows: `mask_layers` must be above 0, got {self.mask_layers}."
            raise ValueError(msg)
        if self.prototypes not in {"clusters", "random"}:
            msg = f"`prototypes` must be 'clusters' or 'random', got {self.prototypes!r}."
            raise ValueError(msg)


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out.

    Attributes:
        max_epochs: Epochs of training; the paper trains 50.
        accelerator: Lightning's accelerator: auto, cpu, gpu, mps.
        precision: Lightning's precision: 32-true, 16-mixed, bf16-mixed.
    """

    max_epochs: int = 50
    accelerator: str = "auto"
    precision: str = "32-true"


def plain_data(value: Any) -> Any:
    """A value as JSON or YAML gives it back."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {str(key): plain_data(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_data(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


PAPER = TrainingSettings(
    feature_layers=1,
    empty_mask="cls",
    prototypes="random",
    num_cached_views=None,
    merging_temperature=100.0,
    contrastive=True,
)
"""The paper's values, with its T of region merging for MVTec AD; for MTD it is 50."""
