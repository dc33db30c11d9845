"""The writer for Neptune."""

from typing import Any

import pytest
import torch

from fasttrain import visualization


@pytest.mark.parametrize(
    ("given", "used"), [(None, {"mode": "offline"}), ({"project": "p"}, {"project": "p"})]
)
def test_neptune(fake: Any, given: dict | None, used: dict) -> None:
    neptune = fake("neptune")
    backend = visualization.NeptuneVisBackend(init_kwargs=given)
    backend.add_scalar("a", torch.tensor(1.5), step=3)
    backend.close()
    neptune.init_run.assert_called_once_with(**used)
    neptune.init_run.return_value["a"].append.assert_called_once_with(1.5, step=3)
