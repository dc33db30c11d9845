"""`verify` finds damage, `export` writes bare weights."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fasttrain.cli import main
from fasttrain.core import checkpoint

WEIGHTS = {"module.linear.weight": torch.randn(3, 5), "module.linear.bias": torch.randn(3)}
BARE = {name.removeprefix("module."): value for name, value in WEIGHTS.items()}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "epoch_1.pth"
    averaged = {"steps": torch.tensor(3), "module.linear.bias": torch.ones(3)}
    state: dict[str, Any] = {"meta": {"epoch": 1}, "state_dict": WEIGHTS}
    checkpoint.save({**state, "ema_state_dict": averaged}, path)
    return path


def flip_a_bit(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1
    path.write_bytes(data)


def bytes_of_weight(path: Path) -> float:
    """Where in the file, as a share of its size, the weight's bytes lie."""
    data = path.read_bytes()
    wanted = WEIGHTS["module.linear.weight"].numpy().tobytes()
    return (data.index(wanted) + 5) / len(data)


def test_whole_files_are_ok(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(saved), str(saved.parent)]) == 0
    assert capsys.readouterr().out == f"{saved}: ok\n" * 2


def test_a_flipped_bit_is_found(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip_a_bit(saved, bytes_of_weight(saved))
    assert main(["verify", str(saved)]) == 1
    assert capsys.readouterr().out.startswith(f"{saved}: DAMAGED: ")


def test_a_short_file_is_found(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = saved.with_name("epoch_2.pth")
    whole.write_bytes(saved.read_bytes())
    saved.write_bytes(saved.read_bytes()[:-100])
    assert main(["verify", str(saved.parent)]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{saved}: DAMAGED: ")
    assert second == f"{whole}: ok"


def test_nothing_to_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 1
    assert "no checkpoints (*.pth) in the folder" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "none.pth")]) == 1
    assert "no such checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "weights.safetensors"])
def test_export(saved: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = saved.with_name(name)
    if out.suffix == ".safetensors":
        load = pytest.importorskip("safetensors.torch").load_file
    else:
        load = torch.load
    assert main(["export", str(saved), str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 2 tensors, 18 values\n"
    found = load(out)
    assert found.keys() == BARE.keys()
    assert all(torch.equal(found[key], value) for key, value in BARE.items())


def test_export_of_averaged_and_of_bare_weights(saved: Path) -> None:
    out = saved.with_name("out.pth")
    assert main(["export", str(saved), str(out), "--trained"]) == 0
    assert torch.load(out).keys() == {"linear.bias"}
    checkpoint.save(BARE, saved)
    assert main(["export", str(saved), str(out)]) == 0
    assert torch.load(out).keys() == BARE.keys()


@pytest.mark.parametrize(
    ("state", "arguments", "text"),
    [
        ({"meta": {}}, ["out.pth"], "looked for 'state_dict' or 'model', found the keys ['meta']"),
        (BARE, ["out.pth", "--trained"], "looked for 'ema_state_dict'"),
        ([1, 2], ["out.pth"], "expected a checkpoint that is a dict, got list"),
        (BARE, ["out.zip"], "expected a .safetensors, .pth or .pt file, got 'out.zip'"),
    ],
)
def test_export_refuses(
    state: Any, arguments: list[str], text: str, saved: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(saved.parent)
    checkpoint.save(state, saved)
    assert main(["export", str(saved), *arguments]) == 1
    assert text in " ".join(capsys.readouterr().err.split())
    assert not (saved.parent / arguments[0]).exists()


class Malicious:
    def __reduce__(self) -> Any:
        return (print, ("ran",))


def test_export_runs_nothing(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": Malicious()}, saved)
    assert main(["export", str(saved), str(saved.with_name("out.pth"))]) == 1
    captured = capsys.readouterr()
    assert "is not safe to open" in captured.err
    assert "ran" not in captured.out
