"""CfgNode: attribute access, strict merging, freezing, bases."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from fasttrain.engine.config import CfgNode, read
from fasttrain.engine.defaults_cfg import get_cfg


def test_keys_are_attributes_and_mappings_become_nodes() -> None:
    source = {"A": {"B": 1}}
    cfg = CfgNode(source)
    cfg.A.B = 2
    cfg.C = {"D": 3}
    assert (cfg.A.B, cfg.C.D, source) == (2, 3, {"A": {"B": 1}})
    with pytest.raises(AttributeError, match="config has no key 'AA'; nearest: A"):
        _ = CfgNode({"A": 1}).AA


def test_a_frozen_config_refuses_every_change() -> None:
    cfg = CfgNode({"A": {"B": 1}})
    cfg.freeze()
    for change in (
        lambda: cfg.A.__setattr__("B", 2),
        lambda: cfg.A.pop("B"),
        lambda: cfg.update(A=1),
        lambda: cfg.__delitem__("A"),
        lambda: cfg.merge_from_list(["A.B", 3]),
    ):
        with pytest.raises(AttributeError, match="the config is frozen; call defrost"):
            change()
    for twin in (cfg.clone(), copy.deepcopy(cfg), pickle.loads(pickle.dumps(cfg))):
        assert twin == cfg and twin.is_frozen() and twin.A.is_frozen()
        twin.defrost()
        twin.A.B = 5
    assert cfg.A.B == 1


def test_lists_of_options_are_typed_like_the_defaults() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(
        ["SOLVER.BASE_LR", "1e-3", "LR_SCHEDULER.STEPS", "[1, 2]", "SOLVER.EPOCH", 3,
         "SOLVER.GRAD_CLIP", 1, "MODEL.WEIGHTS", "a/b.pth"]
    )  # fmt: skip
    assert cfg.SOLVER.BASE_LR == 1e-3
    assert cfg.LR_SCHEDULER.STEPS == (1, 2)
    assert isinstance(cfg.SOLVER.GRAD_CLIP, float)
    assert cfg.MODEL.WEIGHTS == "a/b.pth"


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            ["SOLVER.BASELR", 1],
            KeyError,
            r"Non-existent config key: SOLVER.BASELR; nearest: BASE_LR",
        ),
        (["SOLVER", 1], ValueError, "SOLVER is a section, got 1"),
        (["SOLVER.EPOCH", "many"], ValueError, "SOLVER.EPOCH must be of type int, got 'many'"),
        (["MODEL.USE_EMA", 1], ValueError, "MODEL.USE_EMA must be of type bool, got 1"),
        (["SOLVER.EPOCH"], ValueError, "key and value in turn, got 1 entries"),
    ],
)
def test_bad_options(options: list, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        get_cfg().merge_from_list(options)


def test_files_stand_on_bases(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("SOLVER: {EPOCH: 5, BASE_LR: 1e-4}\nSEED: 1\n")
    (tmp_path / "top.yaml").write_text("_BASE_: base.yaml\nSOLVER: {EPOCH: 7}\n")
    cfg = get_cfg()
    cfg.merge_from_file(tmp_path / "top.yaml")
    assert (cfg.SOLVER.EPOCH, cfg.SOLVER.BASE_LR, cfg.SEED) == (7, 1e-4, 1)
    (tmp_path / "dump.yaml").write_text(cfg.dump())
    again = get_cfg()
    again.merge_from_file(tmp_path / "dump.yaml")
    assert again == cfg


def test_strings_in_files_are_literals_where_no_string_is_expected(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "LR_SCHEDULER:\n  STEPS: (30, 40)\n  NAME: '7'\nSOLVER:\n  BETAS: (0.8, 0.9)\n  EPS: 1e-4\n"
    )
    cfg = get_cfg()
    cfg.merge_from_file(tmp_path / "a.yaml")
    assert (cfg.LR_SCHEDULER.STEPS, cfg.LR_SCHEDULER.NAME) == ((30, 40), "7")
    assert (cfg.SOLVER.BETAS, cfg.SOLVER.EPS) == ([0.8, 0.9], 1e-4)
    (tmp_path / "b.yaml").write_text("LR_SCHEDULER: {STEPS: 30 and 40}\n")
    with pytest.raises(ValueError, match=r"STEPS must be of type tuple, got '30 and 40' \(str\)"):
        cfg.merge_from_file(tmp_path / "b.yaml")


def test_a_node_may_take_new_keys() -> None:
    cfg = CfgNode({"A": CfgNode({"B": 1}, new_allowed=True)})
    extra = {"A": {"C": {"D": [2]}}}
    cfg.merge_from_other_cfg(extra)
    assert cfg.A.C.D == [2] and cfg.A.C.D is not extra["A"]["C"]["D"]
    with pytest.raises(KeyError, match="Non-existent config key: E"):
        cfg.merge_from_other_cfg({"E": 1})
    for twin in (cfg.clone(), pickle.loads(pickle.dumps(cfg))):
        assert twin.A.is_new_allowed() and not twin.is_new_allowed()
    cfg.set_new_allowed(False)
    with pytest.raises(KeyError, match=r"Non-existent config key: A\.E"):
        cfg.merge_from_list(["A.E", 1])
    assert repr(CfgNode({"A": {"B": 1}})) == "CfgNode({'A': CfgNode({'B': 1})})"


def test_bad_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("_BASE_: b.yaml\n")
    (tmp_path / "b.yaml").write_text("_BASE_: a.yaml\n")
    with pytest.raises(ValueError, match=r"_BASE_ goes in a circle"):
        get_cfg().merge_from_file(tmp_path / "a.yaml")
    (tmp_path / "c.yaml").write_text("A: [1\n")
    with pytest.raises(ValueError, match=r"c\.yaml is no valid YAML"):
        get_cfg().merge_from_file(tmp_path / "c.yaml")
    (tmp_path / "d.yaml").write_text("SOLVR: {}\n")
    with pytest.raises(KeyError, match="Non-existent config key: SOLVR; nearest: SOLVER"):
        get_cfg().merge_from_file(tmp_path / "d.yaml")


def test_any_config_is_read_by_path() -> None:
    class Lazy:
        SOLVER = {"EPOCH": 3}

    assert read(Lazy(), "SOLVER.EPOCH") == 3
    assert read(Lazy(), "SOLVER.GONE", 7) == 7
    assert read(get_cfg(), "MODEL.USE_EMA") is False
