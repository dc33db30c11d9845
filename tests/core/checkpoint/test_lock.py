"""A folder has one writing process."""

import subprocess
import sys

import pytest

from fasttrain.core.checkpoint.lock import FolderLock

HOLD = (
    "import sys; from fasttrain.core.checkpoint.lock import FolderLock;"
    "lock = FolderLock(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
)


def test_a_second_process_is_refused_until_the_first_ends(tmp_path):
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(RuntimeError, match=rf"is in use: process {first.pid} on .* work_dir"):
            FolderLock(tmp_path)
    finally:
        first.kill()
        first.wait()
        first.stdin.close()
        first.stdout.close()
    FolderLock(tmp_path).release()


def test_the_same_process_may_lock_again(tmp_path):
    first, second = FolderLock(tmp_path / "new"), FolderLock(tmp_path / "new")
    first.release()
    second.release()
    second.release()
