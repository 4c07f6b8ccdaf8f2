# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest

from anomalib_ncd.regions.reading.decoding import decode_image


def encoded(pixels, suffix=".png"):
    return cv2.imencode(suffix, pixels)[1].tobytes()


def test_channels_come_out_as_rgb():
    bgr = np.zeros((16, 20, 3), np.uint8)
    bgr[..., 2] = 200
    assert decode_image(encoded(bgr), "red")[0, 0].tolist() == [200, 0, 0]
    bgra = np.dstack([bgr, np.full((16, 20), 7, np.uint8)])
    assert decode_image(encoded(bgra), "red")[0, 0].tolist() == [200, 0, 0]


def test_grey_is_repeated_and_16_bits_are_scaled():
    grey = np.full((16, 16), 9, np.uint8)
    assert decode_image(encoded(grey), "grey").tolist() == np.full((16, 16, 3), 9).tolist()
    deep = np.array([[0, 257, 65535] * 6] * 16, np.uint16)
    assert decode_image(encoded(deep), "deep")[0, :3, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize("data", [b"", b"no picture", np.empty(0, np.uint8)])
def test_what_is_no_image_is_named(data):
    with pytest.raises(ValueError, match="Cannot read image part_7: it is missing, empty or no image file"):
        decode_image(data, "part_7")


def test_small_and_float_images_are_refused():
    with pytest.raises(ValueError, match="Image thin is 40x15 pixels; at least 16 a side are needed"):
        decode_image(encoded(np.zeros((15, 40), np.uint8)), "thin")
    with pytest.raises(ValueError, match="Image scores has pixels of type float32"):
        decode_image(encoded(np.zeros((16, 16), np.float32), ".tiff"), "scores")
