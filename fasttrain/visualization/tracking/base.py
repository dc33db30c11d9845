"""What the writers for tracking services have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fasttrain.visualization.base_backend import BaseVisBackend, check_scalars, force_init_env

SUFFIX_TYPE = Sequence[str] | str


class TrackingBackend(BaseVisBackend):
    """What the services have in common: scalars go one by one through `add_scalar`.

    Args:
        save_dir: the folder for local files, if the service has any.
        init_kwargs: arguments for the service's start.
    """

    def __init__(self, save_dir: str | None = None, init_kwargs: dict | None = None) -> None:
        super().__init__(save_dir)  # type: ignore[arg-type]
        self._init_kwargs = dict(init_kwargs or {})
        self.cfg: Any = None

    @force_init_env
    def add_scalars(
        self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any
    ) -> None:
        """Record many scalars; what is no number is left out."""
        check_scalars(scalar_dict)
        for name, value in scalar_dict.items():
            self.add_scalar(name, value, step, **kwargs)

    def _artifacts(self, suffix: SUFFIX_TYPE) -> Iterator[str]:
        """The files in the run's work folder with one of the endings."""
        endings = (suffix,) if isinstance(suffix, str) else tuple(suffix)
        if self.cfg is not None and self.cfg.get("work_dir"):
            for path in sorted(Path(self.cfg["work_dir"]).rglob("*")):
                if path.is_file() and path.name.endswith(endings):
                    yield str(path)
