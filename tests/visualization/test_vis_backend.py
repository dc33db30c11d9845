import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fasttrain.config import Config
from fasttrain.visualization import BaseVisBackend, LocalVisBackend, TensorboardVisBackend
from fasttrain.visualization.vis_backend import force_init_env

IMAGE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_base_is_abstract() -> None:
    with pytest.raises(TypeError, match=r"abstract"):
        BaseVisBackend("x")  # type: ignore[abstract]


def test_the_store_is_set_up_on_first_use_once() -> None:
    class Counting(BaseVisBackend):
        count = 0

        def _init_env(self) -> None:
            self.count += 1

        @property
        @force_init_env
        def experiment(self) -> int:
            return self.count

    backend = Counting("x")
    assert backend.count == 0
    assert (backend.experiment, backend.experiment) == (1, 1)
    backend.add_config(Config({}))
    backend.add_graph(torch.nn.Linear(1, 1), [])
    backend.add_image("a", IMAGE)
    backend.add_scalar("a", 1)
    backend.add_scalars({"a": 1})
    backend.close()


# --- the local writer ---------------------------------------------------------------------
def test_nothing_is_made_before_it_is_used(tmp_path: Path) -> None:
    backend = LocalVisBackend(str(tmp_path / "vis"))
    assert not (tmp_path / "vis").exists()
    assert backend.experiment is backend
    assert (tmp_path / "vis").is_dir()


@pytest.mark.parametrize("name", ["config_save_file", "scalar_save_file"])
def test_file_endings(tmp_path: Path, name: str) -> None:
    with pytest.raises(AssertionError, match=rf"{name} must end with .*, got a\.txt"):
        LocalVisBackend(str(tmp_path), **{name: "a.txt"})


def test_config(tmp_path: Path) -> None:
    LocalVisBackend(str(tmp_path), config_save_file="c.py").add_config(Config({"a": {"b": 1}}))
    assert Config.fromfile(tmp_path / "c.py").a.b == 1
    with pytest.raises(AssertionError, match="config must be a Config, got <class 'dict'>"):
        LocalVisBackend(str(tmp_path)).add_config({})


def test_images(tmp_path: Path) -> None:
    matplotlib_image = pytest.importorskip("matplotlib.image")
    backend = LocalVisBackend(str(tmp_path), img_save_dir="im")
    backend.add_image("a", IMAGE)
    backend.add_image("sub/a", torch.from_numpy(IMAGE), step=3)  # type: ignore[arg-type]
    for name in ("a_0.png", "sub/a_3.png"):
        saved = matplotlib_image.imread(tmp_path / "im" / name)
        np.testing.assert_array_equal((saved[..., :3] * 255).round(), IMAGE)
    with pytest.raises(AssertionError, match=r"an image must be uint8, got float64"):
        backend.add_image("a", IMAGE / 255)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1, 1), (1.5, 1.5), (np.float32(2), 2.0), (np.int64(3), 3), (np.array([4.0]), 4.0),
        (torch.tensor(5.0), 5.0), (torch.tensor([6], requires_grad=False), 6), (True, True),
        (np.arange(2), [0, 1]), ("x", "x"),
    ],
)  # fmt: skip
def test_scalars_of_all_kinds(tmp_path: Path, value, written) -> None:
    backend = LocalVisBackend(str(tmp_path))
    backend.add_scalar("a", value, step=2)
    backend.add_scalars({"a": value})
    assert lines(tmp_path / "scalars.json") == [
        {"a": written, "step": 2},
        {"a": written, "step": 0},
    ]


def test_scalars_and_their_step(tmp_path: Path) -> None:
    backend, scalars = LocalVisBackend(str(tmp_path)), {"a": 1.0}
    backend.add_scalars(scalars, step=2, file_path="more.json")
    backend.add_scalars({"a": 2.0, "step": 7}, step=3)
    assert scalars == {"a": 1.0}
    assert lines(tmp_path / "scalars.json") == [{"a": 1.0, "step": 2}, {"a": 2.0, "step": 7}]
    assert lines(tmp_path / "more.json") == [{"a": 1.0, "step": 2}]


def test_a_bad_call_writes_nothing(tmp_path: Path) -> None:
    backend = LocalVisBackend(str(tmp_path))
    with pytest.raises(AssertionError, match=r"scalars must be a dict, got <class 'list'>"):
        backend.add_scalars([1])  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match=r"``scalar_save_file`` have the same name"):
        backend.add_scalars({"a": 1}, file_path="scalars.json")
    with pytest.raises(AssertionError, match=r"file_path must end with \.json, got a\.txt"):
        backend.add_scalars({"a": 1}, file_path="a.txt")
    with pytest.raises(TypeError, match=r"<class 'object'> cannot be written as JSON"):
        backend.add_scalars({"a": 1, "b": object()})
    assert not (tmp_path / "scalars.json").exists()


# --- TensorBoard --------------------------------------------------------------------------
def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    backend = TensorboardVisBackend(str(tmp_path))
    backend.add_config(Config({"a": 1}))
    backend.add_image("image", IMAGE, step=1)
    backend.add_graph(torch.nn.Linear(1, 1), [])
    for step, value in enumerate([1, 2.5, np.float32(3), torch.tensor([4.0]), np.array(5)]):
        backend.add_scalar("a", value, step)
    backend.add_scalars({"b": 1.0, "c": torch.tensor(2.0)}, step=9, file_path="ignored.json")
    with pytest.warns(UserWarning, match=r"Got <class 'str'>, but .* skip it! \(d\)"):
        backend.add_scalars({"d": "text"})
    with pytest.raises(AssertionError, match=r"Please set it directly through the step"):
        backend.add_scalars({"a": 1, "step": 3})
    backend.close()
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("a")] == [
        (0, 1.0), (1, 2.5), (2, 3.0), (3, 4.0), (4, 5.0)
    ]  # fmt: skip
    assert [(event.step, event.value) for event in events.Scalars("c")] == [(9, 2.0)]
    assert events.Tags()["images"] == ["image"]
    assert set(events.Tags()["scalars"]) == {"a", "b", "c"}


def test_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r'Please run "pip install tensorboard" to install'):
        TensorboardVisBackend(str(tmp_path)).add_scalar("a", 1)
