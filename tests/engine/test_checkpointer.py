"""Checkpointer: what a file holds, what loading takes and reports."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fasttrain.core.checkpoint import CheckpointError, UnsafeCheckpointError
from fasttrain.engine.checkpointer import Checkpointer, strip_prefix
from support import assert_same


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_a_file_opens_with_plain_torch_and_restores_everything(tmp_path: Path) -> None:
    model, optimizer = trained()
    Checkpointer(model, tmp_path, optimizer=optimizer).save("model_1", iteration=7)
    assert (tmp_path / "last_checkpoint").read_text() == "model_1.pth"
    content = torch.load(tmp_path / "model_1.pth", weights_only=True)
    assert list(content) == ["model", "optimizer", "iteration"]

    fresh, fresh_optimizer = nn.Linear(3, 2), torch.optim.SGD([torch.zeros(1)], lr=1.0)
    fresh_optimizer = torch.optim.SGD(fresh.parameters(), lr=1.0, momentum=0.9)
    checkpointer = Checkpointer(fresh, tmp_path, optimizer=fresh_optimizer)
    assert checkpointer.has_checkpoint()
    assert checkpointer.resume_or_load("ignored.pth", resume=True) == {"iteration": 7}
    assert_same(fresh.state_dict(), model.state_dict())
    assert_same(fresh_optimizer.state_dict(), optimizer.state_dict())


def test_without_resume_only_weights_are_loaded(tmp_path: Path) -> None:
    model, optimizer = trained()
    Checkpointer(model, tmp_path, optimizer=optimizer).save("a")
    fresh = nn.Linear(3, 2)
    other = torch.optim.SGD(fresh.parameters(), lr=1.0)
    rest = Checkpointer(fresh, tmp_path / "new", optimizer=other).resume_or_load(
        str(tmp_path / "a.pth"), resume=True
    )
    assert_same(fresh.state_dict(), model.state_dict())
    assert other.param_groups[0]["lr"] == 1.0 and "optimizer" in rest
    assert Checkpointer(fresh, tmp_path / "none").resume_or_load("") == {}


def test_mismatches_are_reported_and_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(
        {
            "module.weight": torch.ones(5, 5),
            "module.bias": torch.ones(2),
            "module.x": torch.ones(1),
        },
        tmp_path / "bare.pth",
    )
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    Checkpointer(model).load(str(tmp_path / "bare.pth"))
    assert torch.equal(model.weight, before)
    assert torch.equal(model.bias, torch.ones(2))
    assert "weight: (5, 5) in the file, (2, 3)" in caplog.text
    assert "In the checkpoint but not in the model:\n  x" in caplog.text


def test_a_prefix_is_only_stripped_when_all_have_it() -> None:
    one = torch.ones(1)
    assert strip_prefix({"module.a": one, "module.b": one}, "module.") == {"a": one, "b": one}
    assert list(strip_prefix({"module.a": one, "b": one}, "module.")) == ["module.a", "b"]


def test_bad_files_are_refused(tmp_path: Path) -> None:
    checkpointer = Checkpointer(nn.Linear(1, 1))
    with pytest.raises(FileNotFoundError, match=r"gone\.pth"):
        checkpointer.load(str(tmp_path / "gone.pth"))
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(CheckpointError, match=r"cut\.pth"):
        checkpointer.load(str(tmp_path / "cut.pth"))
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="must hold a dict with the key 'model', got list"):
        checkpointer.load(str(tmp_path / "list.pth"))

    class Evil:
        def __reduce__(self) -> tuple:
            return (eval, ("1/0",))

    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UnsafeCheckpointError, match="eval"):
        checkpointer.load(str(tmp_path / "evil.pth"))


def test_parts_are_checked(tmp_path: Path) -> None:
    checkpointer = Checkpointer(nn.Linear(1, 1), tmp_path, part=nn.Linear(1, 1))
    with pytest.raises(KeyError, match="'part' is used already"):
        checkpointer.add_checkpointable("part", nn.Linear(1, 1))
    with pytest.raises(TypeError, match="x needs a state_dict method, got int"):
        checkpointer.add_checkpointable("x", 3)  # type: ignore[arg-type]


def test_other_processes_and_no_folder_write_nothing(tmp_path: Path) -> None:
    Checkpointer(nn.Linear(1, 1), tmp_path, save_to_disk=False).save("a")
    Checkpointer(nn.Linear(1, 1)).save("a")
    assert list(tmp_path.iterdir()) == []
