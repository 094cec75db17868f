"""Who walks through a synthetic archive: attributes, look-alikes, words and who belongs to which split."""

import numpy as np
import pytest

from workflows.archive.synthetic.colours import CLOTH, HAIR
from workflows.archive.synthetic.description import ALL_PARTS, describe
from workflows.archive.synthetic.population import make_person, population
from workflows.archive.synthetic.taxonomy import (
    BODY_FIELDS,
    UPPER_KINDS,
    Identity,
    differing_attributes,
    look_alike,
    sample_identity,
    with_other_clothes,
)

COLOURS = set(CLOTH) | set(HAIR)


def _people(count: int) -> list[Identity]:
    rng = np.random.default_rng(0)
    return [sample_identity(rng) for _ in range(count)]


def test_a_look_alike_differs_in_exactly_one_attribute() -> None:
    rng = np.random.default_rng(1)
    changed = [differing_attributes(one.attributes, look_alike(one, rng).attributes) for one in _people(200)]
    assert all(len(names) == 1 for names in changed)
    assert len({names[0] for names in changed}) > 8  # any attribute may be the one


def test_a_look_alike_is_somebody_else() -> None:
    one = _people(1)[0]
    assert look_alike(one, np.random.default_rng(2)).look != one.look


def test_other_clothes_keep_the_body() -> None:
    rng = np.random.default_rng(3)
    for one in _people(50):
        other = with_other_clothes(one, rng)
        assert other.clothes == one.clothes + 1
        assert all(getattr(other.attributes, name) == getattr(one.attributes, name) for name in BODY_FIELDS)
        assert other.attributes.glasses == one.attributes.glasses
        for name in ("height_m", "skin", "hair", "hair_length", "hair_volume", "hair_seed", "beard"):
            assert getattr(other.look, name) == getattr(one.look, name)
        assert other.look.upper != one.look.upper


def test_text_names_the_attributes_that_can_be_seen() -> None:
    for one in _people(100):
        a = one.attributes
        text = describe(one, np.random.default_rng(4))
        assert f"{a.upper_colour} {a.upper_kind}" in text
        assert f"{a.lower_colour} {a.lower_kind}" in text
        assert f"{a.shoe_colour} shoes" in text
        assert (a.bag.kind == "none") or f"{a.bag.colour} {a.bag.kind}" in text


@pytest.mark.parametrize("hidden", sorted(ALL_PARTS))
def test_text_never_names_what_is_hidden(hidden: str) -> None:
    for one in _people(100):
        a = one.attributes
        words = {
            "face": [a.glasses, a.mask], "hair": ["hair", "bald"], "upper": list(UPPER_KINDS[a.gender]),
            "lower": [a.lower_kind], "shoes": ["shoes"], "hat": [f" {a.hat.kind}"], "bag": [a.bag.kind],
            "build": ["slim", "heavy", "stout"],
        }[hidden]  # fmt: skip
        text = describe(one, np.random.default_rng(5), ALL_PARTS - {hidden})
        assert not [word for word in words if word.strip() != "none" and word in text], text


def test_text_uses_only_colours_of_the_attributes() -> None:
    for one in _people(100):
        a = one.attributes
        own = {
            a.hair_colour,
            a.upper_colour,
            a.pattern.colour,
            a.lower_colour,
            a.shoe_colour,
            a.hat.colour,
            a.bag.colour,
        }
        own |= {word for value in (a.mask, *own) for word in value.split()}
        named = COLOURS & set(describe(one, np.random.default_rng(6)).replace(",", "").split())
        assert named <= own


def test_text_follows_from_the_random_state_and_varies_with_it() -> None:
    one = _people(1)[0]
    assert describe(one, np.random.default_rng(7)) == describe(one, np.random.default_rng(7))
    assert len({describe(one, np.random.default_rng(seed)) for seed in range(30)}) > 5


def test_splits_of_one_seed_are_disjoint_and_all_holds_half_of_each() -> None:
    train, test = population(0, "train", 10), population(0, "test", 10)
    both = population(0, "all", 10)
    assert not set(train) & set(test)
    assert set(both) == set(train[:5]) | set(test[:5])
    looks = [make_person(0, *who).wardrobe[0].look for who in (*train, *test)]
    assert len(set(looks)) == 20


def test_a_person_is_the_same_in_any_order_and_differs_by_seed() -> None:
    forward = [make_person(5, "test", number) for number in range(12)]
    make_person.cache_clear()
    assert [make_person(5, "test", number) for number in reversed(range(12))][::-1] == forward
    assert make_person(6, "test", 0) != forward[0]


def test_some_neighbours_are_look_alikes_and_some_own_two_sets_of_clothes() -> None:
    people = [make_person(0, "train", number) for number in range(200)]
    pairs = [(people[n].wardrobe[0], people[n + 1].wardrobe[0]) for n in range(0, 200, 2)]
    alike = [pair for pair in pairs if len(differing_attributes(pair[0].attributes, pair[1].attributes)) == 1]
    assert 20 <= len(alike) <= 60
    assert 8 <= sum(len(person.wardrobe) == 2 for person in people) <= 50
