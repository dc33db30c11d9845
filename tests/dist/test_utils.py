"""Launchers, ranks and devices, without a process group."""

from __future__ import annotations

from collections import namedtuple
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as torch_dist

from fasttrain import dist
from fasttrain.dist import utils

LAUNCHER_VARIABLES = [
    "WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT",
    "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODELIST",
    "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK",
]  # fmt: skip


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A clean environment in which process groups are only recorded."""
    for name in LAUNCHER_VARIABLES:
        # set before delete: what a test sets is undone too
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(torch_dist, "init_process_group", lambda **kwargs: calls.append(kwargs))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return calls


def test_without_a_group() -> None:
    assert not dist.is_distributed()
    assert dist.get_dist_info() == (0, 1)
    assert (dist.get_rank(), dist.get_world_size(), dist.get_backend()) == (0, 1, None)
    assert (dist.get_local_rank(), dist.get_local_size(), dist.get_local_group()) == (0, 1, None)
    assert dist.is_main_process()
    with pytest.raises(ValueError, match="has not been initialized"):
        dist.get_default_group()


@pytest.mark.parametrize(
    ("variable", "launcher"),
    [
        ("WORLD_SIZE", "pytorch"),
        ("SLURM_NTASKS", "slurm"),
        ("OMPI_COMM_WORLD_LOCAL_RANK", "mpi"),
    ],
)
def test_the_launcher_is_read_from_the_environment(
    started: list, monkeypatch: pytest.MonkeyPatch, variable: str, launcher: str
) -> None:
    assert dist.infer_launcher() == "none"
    monkeypatch.setenv(variable, "1")
    assert dist.infer_launcher() == launcher


def test_pytorch_launcher(started: list, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    dist.init_dist("pytorch", backend="gloo", timeout=20)
    dist.init_dist("pytorch", backend="gloo", rank=1, world_size=2)  # not the environment's
    assert started == [
        {"backend": "gloo", "timeout": timedelta(seconds=20)},
        {"backend": "gloo", "rank": 1, "world_size": 2},
    ]


def test_mpi_launcher(started: list, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOCAL_RANK": "0", "SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    with pytest.raises(KeyError, match="MASTER_ADDR is not set"):
        dist.init_dist("mpi", backend="gloo")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    dist.init_dist("mpi", backend="gloo")
    assert started == [{"backend": "gloo"}]
    assert [utils.os.environ[name] for name in ("RANK", "WORLD_SIZE", "MASTER_PORT")] == [
        "1", "2", "29500",
    ]  # fmt: skip


def test_slurm_launcher(started: list, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"PROCID": "5", "NTASKS": "8", "LOCALID": "1", "NODELIST": "node[1-4]"}
    for name, value in values.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    asked: list[list[str]] = []

    def scontrol(command: list[str], text: bool) -> str:
        asked.append(command)
        return "node1\nnode2\n"

    monkeypatch.setattr(utils.subprocess, "check_output", scontrol)
    dist.init_dist("slurm", backend="gloo", port=12345)
    assert asked == [["scontrol", "show", "hostname", "node[1-4]"]]
    assert started == [{"backend": "gloo"}]
    set_by_us = ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "RANK", "WORLD_SIZE")
    assert [utils.os.environ[name] for name in set_by_us] == ["node1", "12345", "1", "5", "8"]


def test_wrong_arguments_of_init_dist(started: list) -> None:
    with pytest.raises(ValueError, match="Invalid launcher type: foo"):
        dist.init_dist("foo")
    with pytest.raises(TypeError, match=r"timeout in seconds, .* <class 'str'>"):
        dist.init_dist("pytorch", timeout="soon")
    with pytest.raises(KeyError, match="RANK"):
        dist.init_dist("pytorch")


def test_unknown_init_backend(started: list, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(ValueError, match='"torch" or "deepspeed", but got horovod'):
        dist.init_dist("pytorch", init_backend="horovod")


def test_master_only_runs_on_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    @dist.master_only
    def add(left: int, right: int = 1) -> int:
        """Add."""
        return left + right

    assert (add(1, right=2), add.__doc__) == (3, "Add.")
    monkeypatch.setattr(utils, "is_main_process", lambda group=None: False)
    assert add(1) is None


X = torch.ones(2)
META = torch.ones(2, device="meta")


@pytest.mark.parametrize("data", [X, [X], (X, X), {"a": X}, {"a": [X, {"b": X}]}])
def test_the_device_of_nested_data(data: Any) -> None:
    assert dist.get_data_device(data) == torch.device("cpu")


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        ([], ValueError, "data should not be empty."),
        ({"a": []}, ValueError, "data should not be empty."),
        ("text", TypeError, "data should be a Tensor, sequence of tensor or dict, but got text"),
        ([1], TypeError, "data should be a Tensor, sequence of tensor or dict, but got 1"),
        ([X, META], ValueError, "should be consistent, but got meta and cpu"),
    ],
)
def test_data_without_one_device(data: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        dist.get_data_device(data)


def test_cast_keeps_the_containers() -> None:
    pair = namedtuple("pair", "left right")
    data = {"a": [X, (X,)], "b": pair(X, X)}
    moved = dist.cast_data_device(data, torch.device("meta"))
    assert list(moved) == ["a", "b"]
    assert isinstance(moved["a"], list)
    assert isinstance(moved["a"][1], tuple)
    assert isinstance(moved["b"], pair)
    assert moved["a"][0].is_meta
    assert moved["b"].right.is_meta
    assert data["a"][0] is X


def test_cast_into_given_tensors() -> None:
    out = {"a": torch.zeros(2), "b": [torch.zeros(2)]}
    into = out["a"]
    result = dist.cast_data_device({"a": X, "b": [X * 3]}, torch.device("cpu"), out)
    assert into.tolist() == [1.0, 1.0]
    assert result["a"] is into
    assert out["b"][0].tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("data", "out", "error", "text"),
    [
        ([], None, ValueError, "data should not be empty"),
        (1, None, TypeError, "data should be a Tensor, list of tensor or dict, but got 1"),
        (X, [X], TypeError, "data is <class 'torch.Tensor'> and out is <class 'list'>"),
        ({"a": X}, {"b": X}, KeyError, "a"),
    ],
)
def test_wrong_casts(data: Any, out: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        dist.cast_data_device(data, torch.device("cpu"), out)
