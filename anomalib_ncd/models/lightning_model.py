# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""AnomalyNCD (Huang et al., CVPR 2025, https://arxiv.org/abs/2410.14379) as a model of anomalib."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from anomalib import LearningType
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback
from torch.optim.lr_scheduler import LambdaLR

from anomalib_ncd.data.batches import ModelInputs, NcdBatch, RegionViewBatch
from anomalib_ncd.data.datamodule import NcdDataModule
from anomalib_ncd.metrics.clustering import build_evaluator
from anomalib_ncd.models import checkpoints, export
from anomalib_ncd.models.class_slots import AUTO, ClassSlots
from anomalib_ncd.models.clustering.clustering import cluster_prototypes
from anomalib_ncd.models.clustering.number_of_classes import NumClassesEstimate, estimate_num_classes
from anomalib_ncd.models.describer import DescriberKind, build_describer, refuse_training, with_networks_of
from anomalib_ncd.models.encoded_regions import RegionCache, cache_views, identity_of, rows_of
from anomalib_ncd.models.losses import AnomalyNcdLoss, build_optimizer, relative_learning_rate
from anomalib_ncd.models.torch_model import AnomalyNcdModel
from anomalib_ncd.regions.classes.prediction import RegionMerging
from anomalib_ncd.regions.settings import RegionSettings
from anomalib_ncd.settings import TrainingSettings

logger = logging.getLogger(__name__)

Decided = TypeVar("Decided")


class AnomalyNcd(AnomalibModule):
    """Discovers defect classes among the anomalies that a detector has found (AnomalyNCD, CVPR 2025).

    Train, test and predict it with anomalib's ``Engine`` and an :class:`~anomalib_ncd.NcdDataModule`.

    Args:
        backbone: timm name of a vision transformer or a convolutional network; ``"offline"`` for EfficientNet-Lite0
            with the weights that the extra ``[offline]`` installs; several with a plus between them, for clusters.
        backbone_weights: Local file with the backbone's weights (safetensors or PyTorch); of several, files with a plus
            between them. Defaults to ``None``: timm fetches them from its hub or takes them from its cache.
        num_novel_classes: Number of classes to tell apart, *normal* (slot 0) included; ``"auto"`` estimates it.
        pretrained: Use trained backbone weights. ``False`` leaves them random; for tests and for loading checkpoints.
        image_size: Side of a region's view in pixels. Defaults to ``None``: the backbone's own input size.
        describer: What classes are made of: ``"frozen_features"`` to train; clusters and checkpoints bring their own.
        training: How classes are learnt. Defaults to ``None``: ``TrainingSettings()``, not quite the paper's.
        false_reject_rate: Share of new regions of known classes that may be called *unknown*; ``None`` calls none so.
        evaluator: Metrics of the test pass; ``True`` for NMI, ARI, accuracy and macro-F1 of images and regions.
        visualizer: ``True`` for :class:`~anomalib_ncd.visualization.NcdVisualizer`, ``False`` for none.

    Attributes:
        num_classes_estimate: The estimate of the number of classes; ``None`` where that was given, or isn't known yet.
        region_settings: How the regions of the run were cut; ``None`` before they were.
        map_kind: What the maps of the run hold: ``"float"``, ``"uint8"`` or ``"uint16"``.

    Example:
        >>> model = AnomalyNcd(num_novel_classes=6, backbone_weights="dino_vitb8.safetensors")  # doctest: +SKIP
        >>> datamodule = NcdDataModule("mtd/test", "mtd_anomaly_maps", base="steel_base")  # doctest: +SKIP
        >>> Engine(max_epochs=50).fit(model, datamodule)  # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: str = "vit_base_patch8_224.dino",
        backbone_weights: str | Path | None = None,
        num_novel_classes: int | Literal["auto"] = AUTO,
        pretrained: bool = True,
        image_size: int | None = None,
        describer: DescriberKind = "frozen_features",
        training: TrainingSettings | None = None,
        false_reject_rate: float | None = 0.02,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = False,
    ) -> None:
        super().__init__(pre_processor=False, post_processor=False, evaluator=evaluator, visualizer=visualizer)
        settings = training or TrainingSettings()
        self.hparams["training"] = asdict(settings)  # checkpoints hold plain data
        self.save_hyperparameters("backbone")  # and what loggers get is a copy of it
        self.backbone_name, self.training_settings = backbone, settings
        self.num_classes_estimate: NumClassesEstimate | None = None
        self.region_settings: RegionSettings | None = None
        self.map_kind: str | None = None
        self._encoded = RegionCache()

        of_encoder = {"pretrained": pretrained, "image_size": image_size, **settings.of_encoder}
        self.model: AnomalyNcdModel = AnomalyNcdModel(
            build_describer(describer, backbone, backbone_weights, **of_encoder),
            ClassSlots.asked_for(num_novel_classes),
            settings.num_heads,
            with_projector=settings.contrastive,
            merging_temperature=settings.merging_temperature,
            false_reject_rate=false_reject_rate,
        )
        self.register_buffer("score_range", torch.full((2,), float("nan")))
        self.register_buffer("head_loss", torch.zeros(settings.num_heads))
        self.score_range: torch.Tensor
        self.head_loss: torch.Tensor
        self._epoch_head_losses: list[torch.Tensor] = []

    def setup(self, stage: str) -> None:
        """Say what regions are wanted, and make heads for the classes that are to be learnt."""
        datamodule = self._datamodule
        if datamodule is None:
            if stage == "predict" and self.slots.num_novel is not None:
                return  # any loader of NcdBatch will do
            msg = "AnomalyNcd needs an anomalib_ncd.NcdDataModule: engine.fit(model, datamodule=NcdDataModule(…))."
            raise TypeError(msg)
        datamodule.prepare_for(self.inputs)
        if stage == "fit":  # before optimizers are made of the heads
            datamodule.refuse_examples()
            refuse_training(self.slots if self.is_fitted else None, self.model.describer, datamodule.base_class_names)
            self.settle_num_classes(datamodule, self.trainer.strategy.root_device)
            if not self.is_fitted:
                self.make_heads(replace(self.slots, base_names=tuple(datamodule.base_class_names)))

    def on_fit_start(self) -> None:
        """Cut and encode the regions, take over what the first process makes of them, and keep views if asked to."""
        datamodule = self._datamodule
        if datamodule is None:
            return
        regions = datamodule.train_regions()
        num_novel = int((~regions.is_base).sum())
        if num_novel < self.slots.num_classes:
            asked = f"`num_novel_classes` is {self.slots.num_classes}, but the images have only {num_novel} regions"
            msg = f"{asked}. Give more images or ask for fewer classes."
            raise ValueError(msg)
        references, prototypes = self._of_first_process(lambda: self._start(datamodule))
        self.take_regions(datamodule, *references)
        if prototypes is not None:
            # The length of prototypes stays, on which the steps of the optimiser depend.
            novel = self.model.heads.weight.data[:, self.slots.num_base :]
            novel.copy_(prototypes.to(novel) * novel.norm(dim=-1, keepdim=True))
        bank = None
        num_views = self.training_settings.cached_views_on(self.device.type)
        if num_views is not None:
            made_from = {"precision": str(self.trainer.precision), **identity_of(self.model.trained_describer)}
            with self.trainer.precision_plugin.forward_context():
                bank = cache_views(datamodule, self.model.frozen, num_views, self.device, made_from)
        datamodule.train_on(bank)

    def on_train_start(self) -> None:
        """Put training that goes on for longer than once planned on its new schedule right away."""
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * self._relative_learning_rate(self.current_epoch)

    def training_step(self, batch: RegionViewBatch, batch_idx: int) -> torch.Tensor | None:
        """Losses of one batch of regions (paper, section 3.3).

        A batch without base or without novel regions is skipped where there are both, as in the authors' code; not
        with several processes, which have to take the same steps.
        """
        del batch_idx
        if self.slots.num_base and self.trainer.world_size == 1 and len(batch.is_base.unique()) == 1:
            return None
        _, projections, logits = self.model(self.model.frozen_views(batch))
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
        if self._epoch_head_losses:
            mean = torch.stack(self._epoch_head_losses).mean(dim=0)
            self.head_loss.copy_(self.trainer.strategy.reduce(mean, reduce_op="mean"))
            self.model.best_head.copy_(self.head_loss.argmin())

    def on_predict_start(self) -> None:
        """Refuse a model that would call images by chance."""
        if self.slots.num_novel is not None and not self.is_fitted:  # without a number there is another error
            msg = "AnomalyNcd was never fitted; call `engine.fit` first, or give `ckpt_path` or `load_from_checkpoint`."
            raise ValueError(msg)

    def test_step(self, batch: NcdBatch, batch_idx: int, *args: Any, **kwargs: Any) -> NcdBatch:  # type: ignore[override]
        """Predict the classes of images and regions; the evaluator reads them off the batch."""
        del batch_idx, args, kwargs
        return self.model.classify(batch)

    def predict_step(self, batch: NcdBatch, batch_idx: int, dataloader_idx: int = 0) -> NcdBatch:  # type: ignore[override]
        """Predict the classes of images and regions; pixels are dropped from what is returned."""
        del batch_idx, dataloader_idx
        return self.model.classify(batch).without_pixels()

    def settle_num_classes(self, datamodule: NcdDataModule, device: torch.device | str = "cpu") -> None:
        """Estimate the number of classes where it isn't known; of several processes the first one does it."""
        if self.slots.num_novel is not None:
            return
        datamodule.prepare_for(self.inputs)
        datamodule.region_table()  # every process, since each waits for the first one to cut
        seed = datamodule.sampler_seed

        def estimate() -> NumClassesEstimate:
            was_training = self.training
            features = rows_of(self.eval().to(device).encode(datamodule))[0]
            self.train(was_training)
            return estimate_num_classes(features, seed=seed)

        self.set_num_classes(self._of_first_process(estimate))

    def set_num_classes(self, estimate: NumClassesEstimate) -> None:
        """Go on with an estimated number of classes, and say so."""
        self.model.slots, self.num_classes_estimate = replace(self.slots, num_novel=estimate.count), estimate
        message = "%d classes, normal included, were estimated (%d to %d are plausible); `num_novel_classes` sets it."
        logger.info(message, estimate.count, estimate.low, estimate.high)

    def encode(self, datamodule: NcdDataModule) -> list[NcdBatch]:
        """All regions of a datamodule, described once; see :meth:`RegionCache.encode`."""
        datamodule.prepare_for(self.inputs)
        return self._encoded.encode(self.model.describe, datamodule)

    def describe_by(self, kind: DescriberKind) -> None:
        """Make classes of something else, by the same networks."""
        if self.hparams["describer"] != kind:
            self.hparams["describer"], self.model.describer = kind, with_networks_of(self.model.describer, kind)

    def forget_regions(self) -> None:
        """Begin anew: new regions are cut with a score range of their own, and as the datamodule says."""
        self._encoded = RegionCache()
        self.region_settings = self.map_kind = None
        self.score_range.fill_(float("nan"))

    def take_regions(self, datamodule: NcdDataModule, references: torch.Tensor, image_index: torch.Tensor) -> None:
        """Take over what new regions are cut and compared like: references ``(R, E)`` and ``(R,)`` image of each."""
        self._encoded = RegionCache()
        self.model.rejection.fit(references, image_index)
        self.region_settings, self.map_kind = datamodule.region_settings, datamodule.region_table().map_kind
        if datamodule.fitted_score_range is not None:
            self.score_range.copy_(torch.tensor(datamodule.fitted_score_range))

    @property
    def is_fitted(self) -> bool:
        """Whether the model was made from regions: by training, by clustering, or from a checkpoint."""
        return bool(self.score_range.isfinite().all())

    @property
    def inputs(self) -> ModelInputs:
        """What the model asks of the regions that it is given."""
        low, high = self.score_range.cpu().double().tolist()
        return ModelInputs(
            image_size=self.model.describer.image_size,
            whole_images=self.model.describer.needs_whole_images,
            score_range=(low, high) if self.is_fitted else None,
            regions=self.region_settings,
            map_kind=self.map_kind,
        )

    @property
    def slots(self) -> ClassSlots:
        """What the outputs of the heads stand for."""
        return self.model.slots

    @property
    def class_names(self) -> list[str]:
        """Name of each novel slot, as given by the user; slots of one name are one class."""
        return self.slots.names

    @class_names.setter
    def class_names(self, names: Sequence[str]) -> None:
        self.model.slots = self.slots.named(names)

    @property
    def region_merging(self) -> RegionMerging:
        """What the classes mean, and how regions decide about their image."""
        return self.model.region_merging

    def make_heads(self, slots: ClassSlots) -> None:
        """Make fresh heads and losses for classes, of which there may be no base ones."""
        self.model.make_heads(slots)
        self.loss = AnomalyNcdLoss(slots.num_base, self.training_settings)

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        """SGD with a cosine schedule per epoch, as in the paper."""
        settings = self.training_settings
        optimizer = build_optimizer(self.parameters(), settings.learning_rate, settings.momentum, settings.weight_decay)
        return {"optimizer": optimizer, "lr_scheduler": LambdaLR(optimizer, self._relative_learning_rate)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what a prediction needs besides the weights, as plain data."""
        super().on_save_checkpoint(checkpoint)
        estimate, regions = self.num_classes_estimate, self.region_settings
        checkpoint[checkpoints.CHECKPOINT_KEY] = {
            **self._fixed_settings,
            "describer": self.hparams["describer"],
            "slots": self.slots.plain(),
            "num_classes_estimate": None if estimate is None else estimate.plain(),
            "region_settings": None if regions is None else regions.to_dict(),
            "map_kind": self.map_kind,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make heads that fit the checkpoint; ``ValueError`` if it is of another model or number of classes."""
        saved, state = checkpoints.own_part(checkpoint), checkpoint["state_dict"]
        self.take_saved_number(saved)
        slots = ClassSlots.from_plain(saved["slots"])
        own = {**self._fixed_settings, "num_novel_classes": self.slots.num_novel}
        checkpoints.refuse_other_settings({**saved, "num_novel_classes": slots.num_novel}, own)
        super().on_load_checkpoint(checkpoint)
        self.describe_by(saved["describer"])
        if self._trainer is not None and self.trainer.state.fn == "fit":
            refuse_training(slots, self.model.describer, slots.base_names or ())
        self.make_heads(slots)
        if state["model.heads.weight"].shape != self.model.heads.weight.shape:  # regions were described otherwise
            raise ValueError(checkpoints.OTHER_VERSION)
        regions, self.map_kind = saved["region_settings"], saved.get("map_kind")
        self.region_settings = None if regions is None else RegionSettings.from_dict(regions)
        self.score_range.copy_(state["score_range"])
        self._encoded = RegionCache()
        if self._datamodule is not None:  # which was set up before the checkpoint was read
            self._datamodule.prepare_for(self.inputs)

    def take_saved_number(self, saved: dict[str, Any]) -> None:
        """Take over the number of classes of a checkpoint's own part where none was given."""
        if self.hparams["num_novel_classes"] == AUTO:
            self.model.slots = replace(self.slots, num_novel=saved["slots"]["num_novel"])
        estimate = saved["num_classes_estimate"]
        self.num_classes_estimate = None if estimate is None else NumClassesEstimate.from_plain(estimate)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, *args: Any, **kwargs: Any) -> "AnomalyNcd":  # type: ignore[override]
        """Load a trained model; the backbone's weights come from the checkpoint, no hub or file is needed."""
        hyper = checkpoints.read_checkpoint(checkpoint_path)["hyper_parameters"]
        defaults = {"pretrained": False, "backbone_weights": None, "training": TrainingSettings(**hyper["training"])}
        defaults["_instantiator"] = None  # which Lightning would import and call
        return super().load_from_checkpoint(checkpoint_path, *args, **defaults | kwargs)  # type: ignore[return-value]

    to_torch, to_onnx, _compress_ov_model = export.to_torch, export.to_onnx, export.compress  # type: ignore[assignment]
    _post_training_quantization_ov = staticmethod(export.quantise)
    _accuracy_control_quantization_ov = staticmethod(export.quantise_with_accuracy_control)

    @property
    def learning_type(self) -> LearningType:
        """Trains on what one detector calls anomalous; anomalib knows no closer type."""
        return LearningType.ONE_CLASS

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """The datamodule brings samplers that know about processes; Lightning's would count images twice."""
        return {"use_distributed_sampler": False}

    @classmethod
    def configure_visualizer(cls) -> Visualizer:  # type: ignore[override]
        """What ``visualizer=True`` stands for: images with their regions and classes."""
        from anomalib_ncd.visualization import NcdVisualizer  # noqa: PLC0415 - a room further down; only where asked for

        return NcdVisualizer()

    def configure_callbacks(self) -> list[Callback]:
        """anomalib's, and one that gives figures to the loggers that take images."""
        from anomalib_ncd.visualization.callbacks import missing_figure_loggers  # noqa: PLC0415

        return [*super().configure_callbacks(), *missing_figure_loggers(self.trainer)]  # type: ignore[misc]

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """NMI, ARI, accuracy and macro-F1 of images and of regions, where labels are known."""
        return build_evaluator()

    @property
    def _datamodule(self) -> NcdDataModule | None:
        """The trainer's datamodule, if there is one and it is of this package."""
        datamodule = getattr(self._trainer, "datamodule", None)
        return datamodule if isinstance(datamodule, NcdDataModule) else None

    @property
    def _fixed_settings(self) -> dict[str, Any]:
        """Settings that a checkpoint must share."""
        heads = self.training_settings.num_heads
        return {"backbone": self.backbone_name, "image_size": self.inputs.image_size, "num_heads": heads}

    def _of_first_process(self, decide: Callable[[], Decided]) -> Decided:
        """Let the first process decide and tell the others, whose networks may have started elsewhere."""
        if self._trainer is None:
            return decide()
        decided = decide() if self.trainer.is_global_zero else None
        return self.trainer.strategy.broadcast(decided)  # type: ignore[return-value]

    def _start(self, datamodule: NcdDataModule) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """What rejection is fitted to, and the prototypes of a training that begins at centres of clusters."""
        features, scores, *references = rows_of(self.encode(datamodule))
        if self.is_fitted or self.training_settings.prototypes == "random":
            return references, None
        numbers = (self.slots.num_classes, self.training_settings.num_heads, datamodule.sampler_seed)
        return references, cluster_prototypes(features, scores, *numbers)

    def _relative_learning_rate(self, epoch: int) -> float:
        return relative_learning_rate(epoch, self.trainer.max_epochs or 1)
