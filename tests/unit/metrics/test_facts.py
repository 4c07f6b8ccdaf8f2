# Copyright (C) 2026 anomalib_ncd authors
# SPDX-License-Identifier: Apache-2.0

import pytest

from anomalib_ncd.metrics.facts import FACTS, tell_facts


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_advice_is_given_where_a_number_is_off(fact):
    fine, off = (1.0, 0.0) if not fact.low_is_fine else (0.0, 1.0)
    assert tell_facts({fact.name: fine})[fact.name]["advice"] == ""
    told = tell_facts({fact.name: off})[fact.name]
    assert told == {"value": off, "text": fact.sentence.format(value=f"{off:.0%}"), "advice": fact.advice}
    assert fact.advice.endswith((".", "?"))


def test_what_is_not_known_is_left_out():
    assert tell_facts({"own_image": float("nan")}) == {}
    assert list(tell_facts({"same_place": 0.1, "images_with_region": 0.9})) == ["images_with_region", "same_place"]
