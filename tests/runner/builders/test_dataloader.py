"""Building dataloaders from configs."""

from functools import partial
from typing import Any

import pytest
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from fasttrain.config import Config
from fasttrain.dataset import DefaultSampler, pseudo_collate, worker_init_fn
from fasttrain.registry import DATA_SAMPLERS, DATASETS, FUNCTIONS
from fasttrain.runner import Runner


@DATASETS.register_module(force=True)
class Numbers:
    metainfo = {"classes": ("number",)}
    initialised = False

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        return index

    def full_init(self) -> None:
        self.initialised = True


DATA_SAMPLERS.register_module(name="ToyBatchSampler", module=BatchSampler, force=True)
FUNCTIONS.register_module(
    name="toy_worker_init", module=lambda worker_id, value=0: None, force=True
)


def cfg(**changes: Any) -> dict[str, Any]:
    sampler = {"type": "DefaultSampler", "shuffle": True}
    return {"dataset": {"type": "Numbers"}, "sampler": sampler, "batch_size": 3, **changes}


def test_defaults() -> None:
    given = cfg()
    loader = Runner.build_dataloader(given, seed=5)
    assert given == cfg()
    assert isinstance(loader.sampler, DefaultSampler)
    assert loader.sampler.seed == 5
    assert loader.dataset.initialised
    assert loader.collate_fn.func is pseudo_collate
    assert isinstance(loader.worker_init_fn, partial)
    assert loader.worker_init_fn.func is worker_init_fn
    assert loader.worker_init_fn.keywords["seed"] == 5
    assert sorted(number for batch in loader for number in batch) == list(range(10))


def test_objects_pass_through() -> None:
    loader = DataLoader([1, 2])
    assert Runner.build_dataloader(loader) is loader
    dataset = Numbers()
    sampler = SequentialSampler(dataset)
    built = Runner.build_dataloader(cfg(dataset=dataset, sampler=sampler, collate_fn=list))
    assert built.dataset is dataset
    assert not dataset.initialised
    assert built.sampler is sampler
    assert next(iter(built)) == [0, 1, 2]


def test_seeds() -> None:
    assert Runner.build_dataloader(cfg()).worker_init_fn is None
    loader = Runner.build_dataloader(cfg(), seed=5, diff_rank_seed=True)
    assert loader.worker_init_fn.keywords["seed"] == 5
    assert isinstance(loader.sampler.seed, int)


def test_batch_sampler() -> None:
    loader = Runner.build_dataloader(
        cfg(batch_sampler={"type": "ToyBatchSampler", "drop_last": True}), seed=5
    )
    assert isinstance(loader.batch_sampler, BatchSampler)
    assert loader.batch_sampler.batch_size == 3
    assert isinstance(loader.batch_sampler.sampler, DefaultSampler)
    assert len(loader) == 3


def test_a_config_object_is_as_good_as_a_dict() -> None:
    loader = Runner.build_dataloader(Config(cfg()), seed=5)
    assert type(loader) is DataLoader
    assert len(loader) == len(Runner.build_dataloader(cfg()))


def test_worker_init_fn() -> None:
    loader = Runner.build_dataloader(cfg(worker_init_fn={"type": "toy_worker_init", "value": 2}))
    assert loader.worker_init_fn.func is FUNCTIONS.get("toy_worker_init")
    assert loader.worker_init_fn.keywords == {"value": 2}
    assert Runner.build_dataloader(cfg(worker_init_fn=print)).worker_init_fn is print
    with pytest.raises(AssertionError, match="no function 'nope' is registered"):
        Runner.build_dataloader(cfg(worker_init_fn={"type": "nope"}))


def test_num_batch_per_epoch_shows_the_datasets_head() -> None:
    loader = Runner.build_dataloader(cfg(num_batch_per_epoch=2))
    assert len(loader) == 2
    assert loader.dataset.metainfo == Numbers.metainfo
    assert sorted(number for batch in loader for number in batch) == list(range(6))
    assert len(Runner.build_dataloader(cfg(num_batch_per_epoch=99))) == 4


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (3, TypeError, "dataloader should be a Dataloader object or dict, but got <class 'int'>"),
        ({"sampler": None}, KeyError, "the dataloader's config needs the key 'dataset'"),
        ({"dataset": [1]}, KeyError, "the dataloader's config needs the key 'sampler'"),
        (cfg(collate_fn={"type": "nope"}), TypeError, "collate_fn: no function 'nope' is regist"),
        (cfg(collate_fn={"type": 3}), TypeError, "type of collate_fn should be string or callable"),
        (cfg(worker_init_fn={"type": 3}), TypeError, "type of worker_init_fn should be string or"),
        (cfg(collate_fn=3), TypeError, "collate_fn should be a dict or callable object, but got 3"),
        (cfg(disable_subprocess_warning=3), AssertionError, "should be a bool, but got"),
        (cfg(dataset={"type": "Numbrs"}), KeyError, "Numbers"),
    ],
)
def test_wrong_configs(given: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        Runner.build_dataloader(given)
