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


def test_a_lazy_layer_takes_the_shape_of_the_file(tmp_path: Path) -> None:
    saved, fresh = nn.LazyLinear(4), nn.LazyLinear(4)
    saved(torch.ones(1, 3))
    Checkpointer(saved, tmp_path).save("model")
    Checkpointer(fresh, tmp_path).resume_or_load("")
    assert_same(fresh.state_dict(), saved.state_dict())


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


def test_a_relative_folder_is_resumed_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, _ = trained()
    Checkpointer(model, "out").save("a", iteration=3)
    fresh = Checkpointer(nn.Linear(3, 2), "out")
    assert fresh.get_checkpoint_file() == "out/a.pth"
    assert fresh.resume_or_load("") == {"iteration": 3}


def test_a_damaged_newest_file_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, optimizer = trained()
    checkpointer = Checkpointer(model, tmp_path, optimizer=optimizer)
    for name in ("a", "b"):
        checkpointer.save(name, tag=name)
    torch.save({"model": model.state_dict()}, tmp_path / "weights_only.pth")
    data = bytearray((tmp_path / "b.pth").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "b.pth").write_bytes(data)
    assert checkpointer.get_checkpoint_file().endswith("b.pth")
    assert checkpointer.resume_or_load("") == {"tag": "a"}
    assert checkpointer.restored == ["model", "optimizer"]
    assert "b.pth is damaged and passed over" in caplog.text
    (tmp_path / "a.pth").unlink()
    with pytest.raises(CheckpointError, match=r"no intact checkpoint to resume from.*'b\.pth'"):
        checkpointer.resume_or_load("")
    assert "it holds no optimizer" in caplog.text


def test_resuming_says_what_was_restored_and_what_was_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    model, optimizer = trained()
    Checkpointer(model, tmp_path).save("a")
    checkpointer = Checkpointer(model, tmp_path, optimizer=optimizer)
    checkpointer.resume_or_load("")
    assert f"Restored model from {tmp_path / 'a.pth'}" in caplog.text
    assert "a.pth holds no optimizer: left as they are" in caplog.text


def test_in_the_background_errors_come_out_at_the_next_save(tmp_path: Path) -> None:
    checkpointer = Checkpointer(nn.Linear(1, 1), tmp_path)
    checkpointer.in_background = True
    (tmp_path / "taken.pth").mkdir()
    checkpointer.save("taken")
    checkpointer._writer._changed.acquire()
    checkpointer._writer._changed.wait_for(lambda: checkpointer._writer.in_flight == 0, timeout=30)
    checkpointer._writer._changed.release()
    with pytest.raises(CheckpointError, match=r"taken\.pth' could not be saved in the background"):
        checkpointer.save("next")
    assert not (tmp_path / "next.pth").exists()
    checkpointer.save("next")
    checkpointer.drain()
    assert (tmp_path / "last_checkpoint").read_text() == "next.pth"


def test_in_the_foreground_the_save_itself_raises(tmp_path: Path) -> None:
    (tmp_path / "taken.pth").mkdir()
    with pytest.raises(CheckpointError, match=r"taken\.pth"):
        Checkpointer(nn.Linear(1, 1), tmp_path).save("taken")


def test_a_snapshot_is_of_the_moment_of_the_save(tmp_path: Path) -> None:
    model = nn.Linear(50, 50)
    before = model.weight.detach().clone()
    checkpointer = Checkpointer(model, tmp_path)
    checkpointer.in_background = True
    checkpointer.save("a")
    with torch.no_grad():
        model.weight.zero_()
    checkpointer.drain()
    assert torch.equal(torch.load(tmp_path / "a.pth")["model"]["weight"], before)


def test_calls_after_a_save_see_the_durable_file_and_pointer(tmp_path: Path) -> None:
    seen: list[tuple[bool, bool]] = []

    def look() -> None:
        seen.append(((tmp_path / "a.pth").exists(), (tmp_path / "last_checkpoint").exists()))

    checkpointer = Checkpointer(nn.Linear(1, 1), tmp_path)
    checkpointer.when_saved(look)  # nothing is being saved: at once
    checkpointer.in_background = True
    checkpointer.save("a")
    checkpointer.when_saved(look)
    checkpointer.drain()
    assert seen == [(False, False), (True, True)]


def test_sharded_parameters_are_refused_instead_of_waited_for(tmp_path, monkeypatch):
    model = torch.nn.Linear(2, 1)
    monkeypatch.setattr("fasttrain.core.dist.world_size", lambda group=None: 2)
    monkeypatch.setattr(torch.nn.Parameter, "full_tensor", lambda self: self, raising=False)
    with pytest.raises(NotImplementedError, match=r"cannot gather .*type='fully_shard'"):
        Checkpointer(model, tmp_path).save("a")
