"""`fasttrain train` and `fasttrain test` on a job of a second: options, errors, interrupts."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fasttrain.cli import main
from fasttrain.cli.errors import UsageError
from fasttrain.cli.training import load_config, use_amp, use_auto_scale_lr
from fasttrain.config import Config

TOY = """
import time
import torch
from fasttrain.evaluator import BaseMetric
from fasttrain.model import BaseModel
from fasttrain.registry import DATASETS, METRICS, MODELS

@DATASETS.register_module(force=True)
class ToyData(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        return dict(inputs=torch.full((2,), float(index)), labels=torch.tensor(float(index)))

@MODELS.register_module(force=True)
class ToyModel(BaseModel):
    def __init__(self, pause=0.0, broken=False):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        self.pause, self.broken = pause, broken
    def forward(self, inputs, labels, mode):
        time.sleep(self.pause)
        if self.broken:
            raise ValueError("a bug in the model's forward")
        error = (self.linear(inputs).squeeze(1) - labels).abs()
        return dict(loss=error.mean()) if mode == "loss" else [dict(error=e) for e in error]

@METRICS.register_module(force=True)
class ToyError(BaseMetric):
    default_prefix = "toy"
    def process(self, data_batch, data_samples):
        self.results += [float(sample["error"]) for sample in data_samples]
    def compute_metrics(self, results):
        return dict(error=sum(results) / len(results))
"""
CONFIG = """
custom_imports = dict(imports=["toy"], allow_failed_imports=False)
model = dict(type="ToyModel")
_data = dict(batch_size=4, dataset=dict(type="ToyData"), num_workers=0,
             collate_fn=dict(type="default_collate"))
train_dataloader = dict(sampler=dict(type="DefaultSampler", shuffle=True), **_data)
test_dataloader = dict(sampler=dict(type="DefaultSampler", shuffle=False), **_data)
train_cfg = dict(by_epoch=True, max_epochs=2)
test_cfg = dict()
test_evaluator = dict(type="ToyError")
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.001))
randomness = dict(seed=0)
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "toy.py").write_text(TOY)
    path = tmp_path / "job.py"
    path.write_text(CONFIG)
    return path


def fasttrain(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fasttrain", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=120, env=ENVIRONMENT,
    )  # fmt: skip


def options(config: Path, *more: str) -> Any:
    from fasttrain.cli.main import build_parser

    return build_parser().parse_args(["train", str(config), *more])


def test_train_then_test(config: Path, tmp_path: Path) -> None:
    done = fasttrain("train", config, "--work-dir", tmp_path / "run", "--test")
    assert done.returncode == 0, done.stderr
    folder, metric = done.stdout.splitlines()[-2:]
    assert folder == f"work folder: {tmp_path / 'run'}"
    assert re.fullmatch(r"test toy/error: \d\.\d{4}", metric)

    saved = tmp_path / "run" / "epoch_2.pth"
    again = fasttrain("test", config, saved, "--work-dir", tmp_path / "run")
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1] == metric  # without save_best the last weights count


def test_ctrl_c_saves_and_says_how_to_continue(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ["train", str(config), "--work-dir", str(folder)]
    arguments += ["--cfg-options", "model.pause=0.2", "train_cfg.max_epochs=50"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fasttrain", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (folder / "epoch_1.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    told = stderr[stderr.rindex("interrupted in epoch") :]
    iterations, saved = re.match(
        r"interrupted in epoch \d+, after (\d+) iterations; the newest checkpoint is (\S+)\n"
        rf"continue with: fasttrain train {config} --work-dir {folder} --resume\n", told
    ).groups()  # fmt: skip
    assert Path(saved).is_file()
    assert "Traceback" not in stderr

    done = fasttrain(
        "train", config, "--work-dir", folder, "--resume",
        "--cfg-options", f"train_cfg.max_epochs={int(iterations) // 2 + 2}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"work folder: {folder}" in done.stdout


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (("SGD", "SDG"), ["cannot train:", "SDG", "SGD"]),
        (('"ToyModel"', '"ToyMobel"'), ["cannot build the runner", "ToyMobel", "ToyModel"]),
        (("model = dict", "model = = dict"), ["cannot load the config", "line 3"]),
        (("toy", "no_such_module"), ["cannot load the config", "no_such_module"]),
        (("train_cfg = dict(by_epoch=True, max_epochs=2)", ""), ["train_cfg"]),
    ],
)
def test_a_bad_config_is_one_paragraph(
    config: Path, tmp_path: Path, change: tuple[str, str], texts: list[str]
) -> None:
    config.write_text(CONFIG.replace(*change))
    done = fasttrain("train", config, "--work-dir", tmp_path / "run")
    assert done.returncode == 1
    message = " ".join(done.stderr[done.stderr.rindex("error: ") :].split())
    assert "Traceback" not in done.stderr
    for text in texts:
        assert text in message


def test_debug_shows_the_traceback(config: Path, tmp_path: Path) -> None:
    config.write_text(CONFIG.replace("SGD", "SDG"))
    done = fasttrain("train", config, "--work-dir", tmp_path / "run", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_failure_inside_an_iteration_keeps_its_traceback(config: Path, tmp_path: Path) -> None:
    done = fasttrain(
        "train", config, "--work-dir", tmp_path / "run", "--cfg-options", "model.broken=True"
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "ValueError: a bug in the model's forward"


def test_missing_files(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path / "none.py")]) == 1
    assert capsys.readouterr().err == f"error: no such config file: {tmp_path / 'none.py'}\n"
    done = fasttrain("test", config, tmp_path / "none.pth", "--work-dir", tmp_path / "run")
    assert done.returncode == 1
    assert "none.pth" in done.stderr
    assert "Traceback" not in done.stderr


def test_options_reach_the_config(config: Path, tmp_path: Path) -> None:
    cfg = load_config(options(config, "--cfg-options", "train_cfg.max_epochs=7", "a.b=[1,2]"))
    assert cfg.train_cfg.max_epochs == 7
    assert cfg.a.b == [1, 2]
    assert cfg.launcher == "none"
    assert cfg.work_dir == str(Path("work_dirs") / "job")
    assert load_config(options(config, "--work-dir", "elsewhere")).work_dir == "elsewhere"


def test_amp() -> None:
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1))))
    use_amp(cfg)
    assert cfg.optim_wrapper.type == "AmpOptimWrapper"
    assert cfg.optim_wrapper.loss_scale == "dynamic"
    with pytest.raises(UsageError, match="the config has 'MyWrapper'"):
        use_amp(Config(dict(optim_wrapper=dict(type="MyWrapper"))))
    with pytest.raises(UsageError, match="this one has none"):
        use_amp(Config({}))


def test_auto_scale_lr() -> None:
    cfg = Config(dict(auto_scale_lr=dict(base_batch_size=16)))
    use_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.enable is True
    with pytest.raises(UsageError, match=r"auto_scale_lr=dict\(base_batch_size=...\)"):
        use_auto_scale_lr(Config({}))


@pytest.mark.parametrize(
    ("more", "resume", "load_from"),
    [([], None, None), (["--resume"], True, None), (["--resume", "x.pth"], True, "x.pth")],
)
def test_resume_option(
    config: Path, more: list[str], resume: bool | None, load_from: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seen: list[Config] = []

    def stop(cfg: Config) -> None:
        seen.append(cfg)
        raise UsageError("seen")

    monkeypatch.setattr("fasttrain.cli.training.build_runner", stop)
    assert main(["train", str(config), *more]) == 1
    assert (seen[0].get("resume"), seen[0].get("load_from")) == (resume, load_from)


def test_several_processes_print_once(config: Path, tmp_path: Path) -> None:
    config.write_text(CONFIG + "env_cfg = dict(dist_cfg=dict(backend='gloo'))\n")
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
            "-m", "fasttrain", "train", str(config), "--work-dir", str(tmp_path / "run"),
            "--launcher", "pytorch", "--test",
        ],
        capture_output=True, text=True, check=False, timeout=180, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("work folder:") == 1
    assert done.stdout.count("test toy/error:") == 1


def test_scalars_are_written_for_plots(config: Path, tmp_path: Path) -> None:
    done = fasttrain(
        "train", config, "--work-dir", tmp_path / "run", "--plot",
        "--cfg-options", "default_hooks.logger.type=LoggerHook", "default_hooks.logger.interval=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (scalars,) = (tmp_path / "run").glob("*/vis_data/scalars.json")
    records = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert done.stdout.splitlines()[-1] == f"curves: {tmp_path / 'run' / 'curves.png'}"
