import pytest

from fasttrain.core.progress import Progress, Stateful
from support import check_save_and_resume


def advance(progress: Progress, step: int) -> tuple[int, int]:
    progress.iter += 1
    if progress.iter % 3 == 0:
        progress.epoch += 1
    return progress.epoch, progress.iter


def test_saves_and_resumes() -> None:
    check_save_and_resume(lambda: Progress(max_epochs=4, max_iters=12), advance)


def test_is_stateful() -> None:
    assert isinstance(Progress(), Stateful)
    assert not isinstance(object(), Stateful)


@pytest.mark.parametrize("missing", ["epoch", "iter"])
def test_a_missing_counter_is_named(missing: str) -> None:
    state = Progress().state_dict()
    del state[missing]
    with pytest.raises(KeyError, match="must have 'epoch' and 'iter'"):
        Progress().load_state_dict(state)


def test_a_negative_counter_changes_nothing() -> None:
    progress = Progress(epoch=1, iter=5)
    with pytest.raises(ValueError, match="max_iters must be >= 0, got -1"):
        progress.load_state_dict({"epoch": 2, "iter": 7, "max_iters": -1})
    assert progress == Progress(epoch=1, iter=5)
