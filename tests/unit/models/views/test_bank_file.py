# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import logging

import pytest
import torch

from anomalib_ncd.models.views.bank_file import BankFile

COUNTS = torch.tensor([[1, 2], [3, 1], [2, 2]])
TOKENS = torch.arange(33).reshape(11, 3).half()
MADE_FROM = {"trunk": "a"}


@pytest.fixture
def written(tmp_path):
    file = BankFile(tmp_path, MADE_FROM, num_views=2)
    file.append(TOKENS[:7], COUNTS[:2])
    file.append(TOKENS[7:], COUNTS[2:])
    return tmp_path


def test_what_was_written_is_read(written):
    file = BankFile(written, MADE_FROM, num_views=2)
    tokens, starts = file.read()
    assert file.num_regions == 3
    assert torch.equal(tokens, TOKENS)
    assert starts.tolist() == [[0, 1, 3], [3, 6, 7], [7, 9, 11]]


def test_an_empty_one(tmp_path):
    file = BankFile(tmp_path / "deep" / "folder", MADE_FROM, num_views=2)
    tokens, starts = file.read()
    assert file.num_regions == 0
    assert tokens.shape == (0, 0)
    assert starts.shape == (0, 3)


def cut(file, num_bytes):
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - num_bytes)


@pytest.mark.parametrize(
    ("name", "num_bytes", "left"),
    [
        ("tokens.bin", 1, 2),  # in the middle of a token
        ("tokens.bin", 4 * 6, 2),  # a whole region
        ("tokens.bin", 8 * 6, 1),  # a region and a view
        ("counts.bin", 1, 2),  # tokens without counts
        ("counts.bin", 4, 2),
        ("counts.bin", 17, 0),
    ],
)
def test_what_is_not_whole_is_dropped(written, name, num_bytes, left):
    cut(written / name, num_bytes)
    file = BankFile(written, MADE_FROM, num_views=2)
    assert file.num_regions == left
    ends = COUNTS.sum(1).cumsum(0).tolist()
    for region in range(left, 3):
        file.append(TOKENS[ends[region] - COUNTS[region].sum() : ends[region]], COUNTS[region : region + 1])
    tokens, starts = file.read()
    assert torch.equal(tokens, TOKENS)
    assert starts[-1].tolist() == [7, 9, 11]


@pytest.mark.parametrize(("made_from", "num_views"), [({"trunk": "b"}, 2), (MADE_FROM, 3)])
def test_another_bank_is_thrown_away(written, caplog, made_from, num_views):
    with caplog.at_level(logging.INFO):
        assert BankFile(written, made_from, num_views).num_regions == 0
    assert "made from something else" in caplog.text
    assert not (written / "tokens.bin").is_file()


def test_tokens_without_a_description_do_not_count(written):
    (written / "made_from.json").unlink()
    assert BankFile(written, MADE_FROM, num_views=2).num_regions == 0
