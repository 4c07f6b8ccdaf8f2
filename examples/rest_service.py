# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

"""A REST service around an artefact, with LitServe: POST an image to /predict, get its class and regions as JSON.

ARTEFACT names the artefact, SHA256 the digest that it must have.
"""

import argparse
import io
import json
import os

import litserve
import numpy as np
from fastapi import HTTPException
from PIL import Image, ImageOps

from anomalib_ncd.deploy import AnomalyClassifier

Image.MAX_IMAGE_PIXELS = 50_000_000  # twice as many are refused before they are decoded


class ClassifierAPI(litserve.LitAPI):
    """Images that arrive together go through the networks together."""

    def setup(self, device):
        self.classifier = AnomalyClassifier.load(os.environ["ARTEFACT"], sha256=os.environ.get("SHA256"), num_threads=1)

    def decode_request(self, request):
        try:
            image = Image.open(io.BytesIO(request["image"].file.read()))
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except (KeyError, AttributeError, OSError, Image.DecompressionBombError) as error:
            raise HTTPException(400, f"Send one image file as the form field `image` ({error}).") from error

    def batch(self, inputs):
        return inputs

    def predict(self, images):
        return list(self.classifier.stream(images, on_error="report"))

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return json.loads(output.to_json())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=1, help="processes, one core each")
    options = parser.parse_args()
    api = ClassifierAPI(max_batch_size=8, batch_timeout=0.01)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=options.workers)
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False)
