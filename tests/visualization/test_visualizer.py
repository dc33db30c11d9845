import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from fasttrain.config import Config
from fasttrain.registry import VISUALIZERS
from fasttrain.visualization import LocalVisBackend, Visualizer
from fasttrain.visualization import visualizer as visualizer_module


@pytest.fixture(autouse=True)
def fresh_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Visualizer, "_instance_dict", OrderedDict())


LOCAL = {"type": "LocalVisBackend"}


@pytest.mark.parametrize(
    ("backends", "folders"),
    [
        (None, {}),
        ([], {}),
        (LOCAL, {"LocalVisBackend": "vis_data"}),
        ([LOCAL, {**LOCAL, "name": "two"}], {"LocalVisBackend": "vis_data", "two": "vis_data"}),
        ([{**LOCAL, "save_dir": "other"}], {"LocalVisBackend": "other"}),
        (LocalVisBackend("own"), {"LocalVisBackend": "own"}),
        ([LocalVisBackend("own")], {"LocalVisBackend": "own"}),
    ],
)
def test_writers(tmp_path: Path, backends: Any, folders: dict[str, str]) -> None:
    built = Visualizer(vis_backends=backends, save_dir=str(tmp_path))._vis_backends
    found = {name: Path(writer._save_dir).name for name, writer in built.items()}
    assert found == folders
    assert LOCAL == {"type": "LocalVisBackend"}


@pytest.mark.parametrize("backends", [3, [3], "x"])
def test_refuses_what_is_no_writer(backends: Any) -> None:
    with pytest.raises(TypeError, match=r"must be a list of dicts or a list of BaseBackend"):
        Visualizer(vis_backends=backends, save_dir="x")


def test_refuses_equal_names() -> None:
    with pytest.raises(RuntimeError, match=r"vis_backend name LocalVisBackend already exists"):
        Visualizer(vis_backends=[LOCAL, LOCAL], save_dir="x")


def test_without_a_folder_configs_are_not_built() -> None:
    with pytest.warns(
        UserWarning, match=r"Failed to add LocalVisBackend, please provide the `save_dir`"
    ):
        assert Visualizer(vis_backends=[LOCAL])._vis_backends == {}


def test_instances() -> None:
    one = Visualizer.get_instance("one")
    assert Visualizer.get_instance("one") is one is Visualizer.get_current_instance()
    built = VISUALIZERS.build({"type": "Visualizer", "name": "two"})
    assert isinstance(built, Visualizer) and built.instance_name == "two"


def test_dataset_meta() -> None:
    visualizer = Visualizer()
    assert visualizer.dataset_meta is None
    visualizer.dataset_meta = {"classes": ("a",)}
    assert visualizer.dataset_meta == {"classes": ("a",)}


def test_everything_reaches_all_writers() -> None:
    writers = {"one": MagicMock(), "two": MagicMock()}
    visualizer = Visualizer()
    visualizer._vis_backends.update(writers)
    cfg, model, image = Config({"a": 1}), torch.nn.Linear(1, 1), np.zeros((2, 2, 3), np.uint8)
    visualizer.add_config(cfg)
    visualizer.add_graph(model, [])
    visualizer.add_image("a", image, step=1)
    visualizer.add_scalar("a", 1.0, step=2)
    visualizer.add_scalars({"a": 1.0}, step=3, file_path="x.json")
    visualizer.close()
    for writer in writers.values():
        writer.add_config.assert_called_once_with(cfg)
        writer.add_graph.assert_called_once_with(model, [])
        writer.add_image.assert_called_once_with("a", image, 1)
        writer.add_scalar.assert_called_once_with("a", 1.0, 2)
        writer.add_scalars.assert_called_once_with({"a": 1.0}, 3, "x.json")
        writer.close.assert_called_once_with()
    assert visualizer.get_backend("two") is writers["two"]
    assert visualizer.get_backend("three") is None


def test_only_rank_0_records(monkeypatch: pytest.MonkeyPatch) -> None:
    visualizer, writer = Visualizer(), MagicMock()
    visualizer._vis_backends["one"] = writer
    monkeypatch.setattr("fasttrain.dist.utils.get_rank", lambda group=None: 1)
    visualizer.add_scalars({"a": 1.0})
    writer.add_scalars.assert_not_called()


def test_a_subclass_draws_samples() -> None:
    class Mine(Visualizer):
        def add_datasample(self, name: str, image: np.ndarray, *args: Any, **kwargs: Any) -> None:
            self.set_image(image)
            self.draw_bboxes(torch.tensor([1, 1, 5, 5]))
            self.add_image(name, self.get_image())

    pytest.importorskip("matplotlib")
    mine, writer = Mine(), MagicMock()
    mine._vis_backends["one"] = writer
    mine.add_datasample("a", np.zeros((10, 10, 3), np.uint8))
    assert writer.add_image.call_args.args[1].max() > 0
    Visualizer().add_datasample("a", np.zeros((10, 10, 3), np.uint8))


def test_show(monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    waited: list[dict] = []
    monkeypatch.setattr(
        visualizer_module, "wait_continue", lambda figure, **kwargs: waited.append(kwargs)
    )
    image = np.full((8, 16, 3), 200, np.uint8)
    visualizer = Visualizer(image=image)
    visualizer.show(wait_time=2.0)
    manager = visualizer.manager
    visualizer.show(drawn_img=image, win_name="again", continue_key="q")
    assert visualizer.manager is manager, "the window is used again"
    assert waited == [
        {"timeout": 2.0, "continue_key": " "},
        {"timeout": 0.0, "continue_key": "q"},
    ]
    visualizer.close()
    assert visualizer.manager is None
    with pytest.raises(ValueError, match=r'should be "matplotlib" or "cv2", but got x'):
        visualizer.show(backend="x")


def test_show_with_cv2(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((8, 16, 3), np.uint8)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r'Please run "pip install opencv-python"'):
        Visualizer().show(image, backend="cv2")
    cv2 = MagicMock()
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    Visualizer().show(image, wait_time=1.5, backend="cv2")
    cv2.waitKey.assert_called_once_with(1500)


def test_drawing_needs_matplotlib_only_when_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    visualizer = Visualizer()
    visualizer.add_scalar("a", 1)
    with pytest.raises(ImportError, match=r'Please run "pip install matplotlib" to install'):
        visualizer.set_image(np.zeros((2, 2, 3), np.uint8))
