"""Run a script on two real processes of one gloo group, and read what its checks said."""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
import sys
from pathlib import Path


def checks_of(script: Path) -> list[str]:
    """The names of the functions `check_<what>(rank)` of a script."""
    return [
        node.name
        for node in ast.parse(script.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("check_")
        and [argument.arg for argument in node.args.args] == ["rank"]
    ]


def run_on_two_ranks(script: Path, folder: Path) -> list[dict[str, str]]:
    """Start `script OUTPUT` once a rank in `folder`; per rank, what it wrote to OUTPUT as JSON."""
    environment = {
        **os.environ,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([p for p in sys.path if p]),
    }
    outputs = [folder / f"rank_{rank}.json" for rank in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(output)],
            cwd=folder,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, output in enumerate(outputs)
    ]
    try:
        said = [process.communicate(timeout=200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return [json.loads(output.read_text(encoding="utf-8")) for output in outputs]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])
