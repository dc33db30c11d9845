"""Random states go on where they were saved."""

import random

import numpy as np
import torch

from fasttrain.core.checkpoint import collect_rng_state, load, restore_rng_state, save
from fasttrain.core.checkpoint.rng import derived_rng_state
from support import assert_same, check_save_and_resume


def draw(part, step):
    return [random.random(), random.gauss(0, 1), np.random.normal(), torch.randn(2)]


def seed():
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)


def test_resume():
    check_save_and_resume(
        seed,
        draw,
        state=lambda _: collect_rng_state(),
        load=lambda _, state: restore_rng_state(state),
    )


def test_the_state_survives_a_file(tmp_path):
    seed()
    random.gauss(0, 1)
    np.random.normal()
    save({"rng": collect_rng_state()}, tmp_path / "a.pth")
    expected = draw(None, 0)
    restore_rng_state(load(tmp_path / "a.pth")["rng"])
    got = draw(None, 0)
    assert got[:3] == expected[:3]
    assert torch.equal(got[3], expected[3])


def test_missing_parts_stay_as_they_are():
    seed()
    expected = draw(None, 0)
    seed()
    restore_rng_state({})
    assert draw(None, 0)[:3] == expected[:3]


def test_a_derived_state_depends_on_the_state_and_the_number() -> None:
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    state = collect_rng_state()
    first, again, second = (derived_rng_state(state, number) for number in (1, 1, 2))
    assert_same(first, again)
    assert_same(collect_rng_state(), state)
    drawn = []
    for derived in (state, first, second):
        restore_rng_state(derived)
        drawn += [random.random(), float(np.random.rand()), float(torch.rand(()))]
    assert len(set(drawn)) == 9
    with_cuda = {**state, "cuda": [torch.zeros(16)]}
    expected = {*state, "cuda"} if torch.cuda.is_available() else {*state}
    assert set(derived_rng_state(with_cuda, 1)) == expected
