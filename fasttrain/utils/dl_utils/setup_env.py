"""Settings of processes that load data."""

from __future__ import annotations

from fasttrain.core import env


def set_multi_processing(
    mp_start_method: str = "fork", opencv_num_threads: int = 0, distributed: bool = False
) -> None:
    """Set how processes are started and how many threads each may use.

    Args:
        mp_start_method: `"fork"`, `"spawn"` or `"forkserver"`; Windows only spawns.
        opencv_num_threads: threads of OpenCV, when it is installed.
        distributed: limit OpenMP and MKL to one thread per process, unless the environment
            already says how many.
    """
    env.setup_multi_processing(mp_start_method, opencv_num_threads, distributed=distributed)
