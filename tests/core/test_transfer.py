import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fasttrain.core.store import ScalarStore
from fasttrain.core.transfer import AveragingReader, HostTransfer, TorchReader


def test_host_tensors_are_not_deferred() -> None:
    reader = TorchReader()
    assert reader.direct and not reader.defers(torch.zeros(()))
    transfer = reader.begin([torch.tensor([1.0, 2.0]), torch.tensor([3])])
    assert isinstance(transfer, HostTransfer) and transfer.ready()
    assert transfer.values().tolist() == [1.0, 2.0, 3.0]


def test_reading_does_not_begin_a_fetch_of_all_processes() -> None:
    store = ScalarStore(reader=AveragingReader())
    store.put_many({"loss": torch.tensor(1.0), "lr": 0.5})
    assert len(store.series("loss")) == 0 and len(store.series("lr")) == 0
    seen: list[int] = []
    flush = store.begin_flush(lambda: seen.append(len(store.series("loss"))))
    store.put_many({"loss": torch.tensor(3.0)})
    flush.finish()
    assert seen == [1] and store.series("loss").values().tolist() == [1.0]
    store.settle()
    assert store.pending and len(store.series("loss")) == 1
    store.flush()
    assert store.series("loss").values().tolist() == [1.0, 3.0] and not store.pending


def test_a_reader_may_be_changed() -> None:
    store = ScalarStore()
    store.put_many({"loss": torch.tensor(1.0)})
    store.use_reader(AveragingReader())
    store.put_many({"loss": torch.tensor(2.0)})
    assert store.series("loss").values().tolist() == [1.0] and store.pending
    store.use_reader(TorchReader())
    store.put_many({"loss": torch.tensor(3.0)})
    assert store.series("loss").values().tolist() == [1.0, 2.0, 3.0] and not store.pending


WORKER = """
import json, os
import torch
import torch.distributed as dist
from fasttrain.core.dist import leave
from fasttrain.core.store import ScalarStore
from fasttrain.core.transfer import AveragingReader

dist.init_process_group("gloo")
rank = dist.get_rank()
calls = []
original = dist.all_reduce
dist.all_reduce = lambda *args, **kwargs: (calls.append(1), original(*args, **kwargs))[1]
store = ScalarStore(reader=AveragingReader())
for step in range(20):
    loss, count = torch.tensor(float(step + rank)), torch.tensor(rank)
    store.put_many({"loss": loss, "count": count, "own": rank})
    if rank == 0:
        store.series("loss").values()  # one process reads alone: the other must not be needed
    if step % 10 == 9:
        store.begin_flush().finish()
shown = {name: store.series(name).values().tolist() for name in store}
print(json.dumps({"calls": len(calls), **shown}))
leave()
"""


def test_two_processes_average(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env={**environment, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        results = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for rank, (out, err) in enumerate(results):
        assert out, err
        shown = json.loads(out)
        assert shown["calls"] == 2, "one all-reduce for each fetch"
        assert shown["loss"] == [step + 0.5 for step in range(20)]
        assert shown["count"] == [0.5] * 20
        assert shown["own"] == [rank] * 20, "what is no tensor stays each process's own"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_types_arrive_as_float64(dtype: torch.dtype) -> None:
    vectors = [torch.tensor([1, 0], dtype=dtype), torch.tensor([0.1], dtype=torch.float64)]
    assert TorchReader().begin(vectors).values().tolist() == [1.0, 0.0, 0.1]
