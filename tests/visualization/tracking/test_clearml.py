"""The writer for ClearML."""

from typing import Any

from fasttrain import visualization
from fasttrain.config import Config


def test_clearml(fake: Any, cfg: Config) -> None:
    clearml = fake("clearml")
    backend = visualization.ClearMLVisBackend(init_kwargs={"project_name": "p"})
    backend.add_config(cfg)
    backend.add_scalars({"a": 1.0, "text": "x"}, step=3)
    backend.close()
    clearml.Task.init.assert_called_once_with(project_name="p")
    task = clearml.Task.init.return_value
    task.connect_configuration.assert_called_once_with(cfg.to_dict())
    task.get_logger.return_value.report_scalar.assert_called_once_with(
        title="a", series="a", value=1.0, iteration=3
    )
    uploaded = [arguments.args for arguments in task.upload_artifact.call_args_list]
    assert uploaded == [(name, f"{cfg.work_dir}/{name}") for name in ("b.py", "c.pth")]
    task.close.assert_called_once_with()
