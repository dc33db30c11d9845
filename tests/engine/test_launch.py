"""launch: one process directly, several over Gloo, and its checks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fasttrain.engine import comm, launch
from fasttrain.engine.launch import find_free_port


def test_one_process_is_called_directly() -> None:
    seen: list[tuple] = []
    launch(lambda *args: seen.append(args), 1, args=(1, "a"))
    launch(lambda *args: seen.append(args), 0)
    assert seen == [(1, "a"), ()]


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"num_machines": 2, "dist_url": "auto"}, 'dist_url="auto" is for one machine'),
        ({"num_machines": 2}, "several processes need a dist_url"),
        ({"machine_rank": 1}, "0 <= machine_rank < num_machines, got 2, 1 and 1"),
    ],
)
def test_bad_arguments(kwargs: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        launch(print, 2, **kwargs)


def test_a_file_between_machines_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    urls: list[str] = []
    monkeypatch.setattr(
        torch.multiprocessing, "start_processes", lambda *a, args, **k: urls.append(args[4])
    )
    launch(print, 1, 2, dist_url="file:///shared/store")
    assert "file:// is not a reliable dist_url between machines" in caplog.text
    caplog.clear()
    launch(print, 2, dist_url="file:///shared/store")
    assert urls == ["file:///shared/store"] * 2 and caplog.text == ""


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="num_gpus_per_machine=3, but this machine has 2 GPUs"):
        launch(print, 3, dist_url="auto")


def _on_two_processes(folder: str) -> None:
    rank = comm.get_rank()
    assert comm.get_world_size() == comm.get_local_size() == 2
    assert comm.get_local_rank() == rank
    assert comm.all_gather(rank) == [0, 1]
    assert comm.gather(rank) == ([0, 1] if rank == 0 else [])
    reduced = comm.reduce_dict({"a": torch.tensor(float(rank)), "b": torch.tensor(2.0)})
    assert {name: float(value) for name, value in reduced.items()} == {"a": 0.5, "b": 2.0}
    seeds = comm.all_gather(comm.shared_random_seed())
    assert seeds[0] == seeds[1]
    Path(folder, f"done{rank}").touch()


@pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes need no or two GPUs")
def test_two_processes_talk_over_gloo(tmp_path: Path) -> None:
    launch(_on_two_processes, 2, dist_url="auto", args=(str(tmp_path),))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done0", "done1"]


def test_alone_collectives_are_identities() -> None:
    assert (comm.get_rank(), comm.get_world_size(), comm.get_local_rank()) == (0, 1, 0)
    assert comm.is_main_process()
    assert comm.all_gather("x") == comm.gather("x") == ["x"]
    comm.synchronize()
    assert 0 < find_free_port() < 65536
