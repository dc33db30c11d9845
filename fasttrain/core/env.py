"""The process around a run: random seeds, determinism, worker processes, threads, open files."""

from __future__ import annotations

import os
import platform
import random
import sys
import warnings

import numpy as np
import torch
import torch.multiprocessing as mp

MAX_NUMPY_SEED = 2**32
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def seed_everything(seed: int, *, rank: int = 0, deterministic: bool = False) -> int:
    """Seed python, numpy, torch and every CUDA device; return the seed used, `seed + rank`.

    Args:
        seed: the run's seed.
        rank: added to the seed; leave it 0 for the same numbers on every process.
        deterministic: also ask torch for deterministic algorithms.
    """
    seed += rank
    random.seed(seed)
    np.random.seed(seed % MAX_NUMPY_SEED)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)
    if deterministic:
        use_deterministic_algorithms()
    return seed


def use_deterministic_algorithms() -> None:
    """Make torch choose deterministic kernels, and raise where there is none."""
    # cuBLAS reads this when its handle is created and is not deterministic without it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True)


def worker_seed(seed: int, *, worker_id: int, num_workers: int, rank: int = 0) -> int:
    """A different seed for every worker of every process."""
    return num_workers * rank + worker_id + seed


def set_start_method(method: str = "fork") -> None:
    """Set how worker processes start; warn when another method was set before. No-op on Windows."""
    if platform.system() == "Windows":
        return
    current = mp.get_start_method(allow_none=True)
    if current is not None and current != method:
        warnings.warn(
            f"Multi-processing start method `{method}` is different from the previous setting "
            f"`{current}`. It will be force set to `{method}`. You can change this behavior by "
            "changing `mp_start_method` in your config.",
            stacklevel=2,
        )
    mp.set_start_method(method, force=True)


def set_opencv_threads(num_threads: int = 0) -> None:
    """Limit OpenCV's own threads, which fight with the workers'; nothing when it is not there."""
    try:
        import cv2
    except ImportError:
        return
    cv2.setNumThreads(num_threads)


def limit_process_threads() -> None:
    """Give each process of a distributed run one OpenMP and MKL thread unless the user chose."""
    for name in THREAD_VARIABLES:
        if name not in os.environ:
            os.environ[name] = "1"
            warnings.warn(
                f"Setting {name} environment variable for each process to be 1 in default, to "
                "avoid your system being overloaded, please further tune the variable for "
                "optimal performance in your application as needed.",
                stacklevel=2,
            )


def setup_multi_processing(
    start_method: str = "fork", opencv_num_threads: int = 0, *, distributed: bool = False
) -> None:
    """Prepare for worker processes: start method, OpenCV's threads, threads per process."""
    set_start_method(start_method)
    set_opencv_threads(opencv_num_threads)
    if distributed:
        limit_process_threads()


def raise_open_file_limit(limit: int = 4096) -> int:
    """Raise the soft limit of open files to at least `limit`, within the hard limit.

    Returns:
        the soft limit now in force; 0 where the system has none (Windows).
    """
    if sys.platform == "win32":
        return 0
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(limit, soft) if hard == resource.RLIM_INFINITY else min(max(limit, soft), hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
