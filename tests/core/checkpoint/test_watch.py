"""When a save may copy late what an optimizer updates, and who notices when it may not."""

import copy

import pytest
import torch
from torch import nn

from fake_streams import CPU, Stream, put_in_place
from fasttrain.core import fused
from fasttrain.core.checkpoint import CheckpointError, order_after_copies, watch
from fasttrain.core.checkpoint.watch import Watch, updated_tensors


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    return put_in_place(monkeypatch)


class Training:
    """One weight and its optimizer; a step notes itself in the stream."""

    def __init__(self, stream: Stream, kind: type[torch.optim.Optimizer]) -> None:
        self.log = stream.log
        self.weight = nn.Parameter(torch.ones(3))
        self.optimizer = kind([self.weight], lr=0.1, momentum=0.9)
        self.watch = Watch.of(self.optimizer)

    def step(self) -> None:
        self.weight.grad = torch.ones(3)
        self.optimizer.step()
        self.log.append("step")

    def save(self) -> bool:
        """Whether this save copies late."""
        self.period = self.watch.begin(self.optimizer)
        return self.period is not None

    def trusted(self) -> "Training":
        for late in (False, True):
            assert self.save() is late
            self.step()
        return self


@pytest.fixture(params=[torch.optim.SGD, fused.SGD], ids=["hook", "call"])
def training(stream: Stream, request: pytest.FixtureRequest) -> Training:
    return Training(stream, request.param)


def clamp(training: Training) -> None:
    with torch.no_grad():
        training.weight.clamp_(-0.5, 0.5)


def clamp_unseen(training: Training) -> None:
    training.weight.data.clamp_(-0.5, 0.5)  # no version counter moves


def change_momentum(training: Training) -> None:
    training.optimizer.state[training.weight]["momentum_buffer"].mul_(0.5)


def test_a_step_waits_for_each_copy_once(stream, training):
    training.save()
    training.watch.add(CPU, "copy 1")
    training.watch.add(CPU, "copy 2")
    training.step()
    training.step()
    assert stream.log == ["copy 2", "copy 1", "step", "step"]


def test_other_changes_wait_too_and_the_step_no_more(stream, training):
    other = Training(stream, torch.optim.SGD)
    training.save()
    training.watch.add(CPU, "copy")
    order_after_copies([other.optimizer])
    assert stream.log == []
    order_after_copies([other.optimizer, training.optimizer])
    order_after_copies([training.optimizer])
    training.step()
    assert stream.log == ["copy", "step"]


def test_a_copied_optimizer_waits_for_nothing(stream, training):
    training.save()
    training.watch.add(CPU, "copy")
    copied = copy.deepcopy(training.optimizer)
    order_after_copies([copied])
    copied.step()
    assert stream.log == []


def test_an_optimizer_that_is_not_saved_is_not_watched(stream):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    order_after_copies([optimizer])
    assert not optimizer._optimizer_step_pre_hooks


def test_the_first_save_only_looks(training):
    assert not training.save()
    assert not training.save()  # without a step in between there is nothing to learn from
    training.step()
    assert training.save()


@pytest.mark.parametrize("change", [clamp, clamp_unseen, change_momentum])
def test_who_lets_others_change_its_tensors_is_not_trusted(training, change, caplog):
    training.step()
    training.save()
    change(training)
    with caplog.at_level("INFO", "fasttrain.checkpoint"):
        training.step()
        for _ in range(3):
            assert not training.save()
            training.step()
    assert caplog.text.count("something other than their optimizer's steps") == 1


def test_an_embedding_that_limits_its_norms_is_not_trusted(stream):
    embedding = nn.Embedding(4, 2, max_norm=0.1)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    watch = Watch.of(optimizer)
    for _ in range(3):
        assert watch.begin(optimizer) is None
        embedding(torch.arange(4)).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("change", [clamp, change_momentum])
def test_a_change_beside_a_late_copy_fails_the_save(training, change):
    training.trusted()
    assert training.save()
    change(training)
    with pytest.raises(CheckpointError, match=r"1 of 2 parameters .* may be torn.* blocking=True"):
        training.period.check()
    training.step()
    assert not training.save()


def test_the_step_that_comes_before_the_copy_ends_is_no_change(training):
    training.trusted()
    assert training.save()
    training.step()
    training.period.check()
    assert training.save()


def test_a_change_after_the_copy_ended_fails_nothing_but_is_noticed(training):
    training.trusted()
    assert training.save()
    training.period.check()
    clamp(training)
    training.period.check()
    training.step()
    assert not training.save()


@pytest.mark.parametrize(("kept", "late"), [(True, True), (False, False)])
def test_an_announced_change_counts_by_what_it_leaves(training, kept, late):
    training.save()
    order_after_copies([training.optimizer])
    with torch.no_grad():
        training.weight.add_(1.0)
        training.weight.sub_(1.0 if kept else 0.5)
    training.step()
    assert training.save() is late


def test_an_announced_change_fails_no_late_copy(training):
    training.trusted()
    assert training.save()
    order_after_copies([training.optimizer])
    clamp(training)
    training.period.check()
    training.step()
    assert training.save()


def test_what_a_step_may_change(training):
    training.step()
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    training.optimizer.add_param_group({"params": [frozen, nn.Parameter(torch.ones(2))]})
    state = training.optimizer.state[training.weight]["momentum_buffer"]
    other = training.optimizer.param_groups[1]["params"][1]
    assert [id(t) for t in updated_tensors(training.optimizer)] == [
        *map(id, (training.weight, other, state))
    ]


def test_an_optimizer_whose_step_went_into_a_graph_is_not_trusted(stream, training, monkeypatch):
    training.trusted()
    assert training.save()
    training.watch.add(CPU, "copy")
    with monkeypatch.context() as patch:
        patch.setattr(watch, "_is_capturing", lambda: True)
        training.step()
    assert "copy" not in stream.log  # an event from outside has no place in the graph
    assert not training.save()


def test_a_fused_step_that_went_into_a_graph_later_ends_the_trust(stream):
    training = Training(stream, fused.SGD).trusted()
    training.optimizer._captured.append(torch.empty(0))
    assert not training.save()


def test_a_fused_step_is_not_observed_for_ever(stream):
    training = Training(stream, fused.SGD)
    training.save()
    assert not training.optimizer._observed()
    training.step()
    assert training.optimizer._before_step is None
