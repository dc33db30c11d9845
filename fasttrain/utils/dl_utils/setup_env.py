"""Settings of processes that load data."""

from __future__ import annotations

import multiprocessing
import os
import platform
import sys
import warnings


def set_multi_processing(
    mp_start_method: str = "fork", opencv_num_threads: int = 0, distributed: bool = False
) -> None:
    """Set how processes are started and how many threads each may use.

    Args:
        mp_start_method: `"fork"`, `"spawn"` or `"forkserver"`; Windows only spawns.
        opencv_num_threads: threads of OpenCV, when a program uses it.
        distributed: limit OpenMP and MKL to one thread per process, unless the environment
            already says how many.
    """
    if platform.system() != "Windows":
        current = multiprocessing.get_start_method(allow_none=True)
        if current is not None and current != mp_start_method:
            warnings.warn(
                f"Multi-processing start method `{mp_start_method}` is different from the "
                f"previous setting `{current}`. It will be force set to `{mp_start_method}`. You "
                "can change this behavior by changing `mp_start_method` in your config.",
                stacklevel=2,
            )
        multiprocessing.set_start_method(mp_start_method, force=True)

    if "cv2" in sys.modules:  # not imported for this alone: loading it takes long
        sys.modules["cv2"].setNumThreads(opencv_num_threads)

    if distributed:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            if name not in os.environ:
                os.environ[name] = "1"
                warnings.warn(
                    f"Setting {name} environment variable for each process to be 1 in default, to "
                    "avoid your system being overloaded, please further tune the variable for "
                    "optimal performance in your application as needed.",
                    stacklevel=2,
                )
