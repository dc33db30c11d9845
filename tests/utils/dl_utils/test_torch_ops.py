"""Operations of torch."""

import torch

from fasttrain.utils.dl_utils import torch_meshgrid


def test_meshgrid_has_the_first_tensor_along_the_rows():
    rows, columns = torch_meshgrid(torch.arange(2), torch.arange(3))
    assert rows.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert columns.tolist() == [[0, 1, 2], [0, 1, 2]]
