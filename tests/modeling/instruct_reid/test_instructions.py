"""Pools, tasks and sentences from attributes."""

import numpy as np
import pytest

from modeling.errors import ConfigError, DataError
from modeling.instruct_reid.attributes import ATTRIBUTES, describe_attributes, tone_of
from modeling.instruct_reid.instructions import (
    DESCRIPTIVE_TASKS,
    SENTENCES,
    TASKS,
    draw_sentence,
    fixed_sentence,
    named_task,
)


def test_twenty_different_sentences_for_each_task_that_has_a_pool() -> None:
    assert set(SENTENCES) == set(TASKS) - DESCRIPTIVE_TASKS
    assert all(len(set(pool)) == 20 for pool in SENTENCES.values())
    drawn = {draw_sentence("CC", np.random.default_rng(seed)).text for seed in range(200)}
    assert drawn == set(SENTENCES["CC"])
    assert fixed_sentence("VI").text == SENTENCES["VI"][0]


def test_task_names() -> None:
    assert named_task("ctcc") == "CTCC"
    with pytest.raises(ConfigError, match="Trad, CC, CTCC, VI, T2I, LI"):
        named_task("reid")
    with pytest.raises(DataError, match="no sentences"):
        fixed_sentence("LI")


def test_the_taxonomy_has_twenty_attributes_and_ninety_two_words() -> None:
    assert len(ATTRIBUTES) == 20
    assert sum(len(words) for words in ATTRIBUTES.values()) == 92


@pytest.mark.parametrize("seed", range(20))
def test_every_attribute_is_said(seed: int) -> None:
    rng = np.random.default_rng(seed)
    attributes = {name: str(rng.choice(words)) for name, words in ATTRIBUTES.items()}
    text = describe_attributes(attributes, np.random.default_rng(seed)).lower()
    said = {
        "bald": "no hair",
        "clean-shaven": "no beard",
        "colour block": "lower part",
        "contrasting sleeves": "sleeves",
        "plain": "without a pattern",
    }
    for name, word in attributes.items():
        if name == "hair colour" and attributes["hair style"] == "bald":
            continue
        if name == "pattern tone" and attributes["pattern"] == "plain":
            continue
        assert said.get(word, word) in text, (name, word, text)
    assert text == describe_attributes(attributes, np.random.default_rng(seed)).lower()


def test_few_attributes_are_enough() -> None:
    rng = np.random.default_rng(0)
    assert "black trousers" in describe_attributes({"lower colour": "black", "lower garment": "trousers"}, rng)
    with pytest.raises(DataError, match="'hat' is 'crown'"):
        describe_attributes({"hat": "crown"}, rng)


def test_tones() -> None:
    assert [tone_of(colour) for colour in ("navy", "white", "red")] == ["dark", "light", "bright"]
