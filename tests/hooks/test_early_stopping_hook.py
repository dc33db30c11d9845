"""Training stops on a stalled, passed or non-finite score, with the reason in the log."""

from types import SimpleNamespace

import pytest

from fasttrain.hooks import EarlyStoppingHook


@pytest.fixture
def runner():
    lines = []
    return SimpleNamespace(
        train_loop=SimpleNamespace(stop_training=False),
        logger=SimpleNamespace(info=lines.append),
        lines=lines,
    )


def feed(hook, runner, *scores):
    for score in scores:
        hook.after_val_epoch(runner, {hook.monitor: score})
    return runner.train_loop.stop_training


def test_patience(runner):
    hook = EarlyStoppingHook(monitor="acc", patience=2)
    assert not feed(hook, runner, 0.5, 0.55, 0.65, 0.6)
    assert feed(hook, runner, 0.6)
    assert runner.lines == [
        "the monitored metric did not improve in the last 2 records. best score: 0.650. "
    ]


@pytest.mark.parametrize(
    ("rule", "scores"), [("greater", (1.0, 1.25, 1.25)), ("less", (1.0, 0.75, 0.75))]
)
def test_as_much_as_the_delta_is_enough(runner, rule, scores):
    hook = EarlyStoppingHook("x", rule=rule, min_delta=0.25, patience=1)
    assert not feed(hook, runner, *scores[:2])
    assert feed(hook, runner, scores[2])
    constant = EarlyStoppingHook("x", rule=rule, min_delta=0, patience=1)
    runner.train_loop.stop_training = False
    assert not feed(constant, runner, 1.0, 1.0, 1.0)


def test_smaller_is_better(runner):
    hook = EarlyStoppingHook(monitor="loss", min_delta=0.01, patience=1)
    assert hook.min_delta == -0.01
    assert not feed(hook, runner, 0.5, 0.4)
    assert feed(hook, runner, 0.395)


@pytest.mark.parametrize(
    ("monitor", "score", "text"),
    [("acc", 0.95, "0.95 is greater than 0.9"), ("loss", 0.05, "0.05 is less than 0.9")],
)
def test_threshold(runner, monitor, score, text):
    hook = EarlyStoppingHook(monitor=monitor, stopping_threshold=0.9)
    assert feed(hook, runner, score)
    assert text in runner.lines[0]


def test_non_finite_scores(runner):
    assert not feed(EarlyStoppingHook("acc", check_finite=False), runner, float("nan"))
    assert feed(EarlyStoppingHook("acc"), runner, float("inf"))
    assert "Monitored metric acc = inf is infinite" in runner.lines[0]


def test_a_missing_metric(runner):
    with pytest.warns(UserWarning, match=r"Skip early stopping .* `monitor` \(acc\)"):
        EarlyStoppingHook("acc").after_val_epoch(runner, {"loss": 1})
    with pytest.raises(RuntimeError, match=r"metric `acc is not available.*\{'loss': 1\}"):
        EarlyStoppingHook("acc", strict=True).after_val_epoch(runner, {"loss": 1})


def test_rules():
    assert EarlyStoppingHook("top1_loss").rule == "greater"
    assert EarlyStoppingHook("MEAN_LOSS").rule == "less"
    with pytest.raises(ValueError, match="Cannot infer the rule for x, thus rule must be"):
        EarlyStoppingHook("x")
    with pytest.raises(ValueError, match='`rule` should be either "greater" or "less", but got a'):
        EarlyStoppingHook("x", rule="a")


def test_the_loop_must_be_one_that_stops():
    with pytest.raises(AssertionError, match="should contain `stop_training` variable"):
        EarlyStoppingHook("acc").before_run(SimpleNamespace(train_loop=object()))
