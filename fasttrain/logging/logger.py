"""The logger of a run: one line form for terminal and file, ranks told apart."""

from __future__ import annotations

import getpass
import logging
import logging.handlers
import os
import socket
import sys
from logging import Logger, LogRecord
from pathlib import Path
from typing import Any

import torch

from fasttrain.core import dist as core_dist
from fasttrain.utils.manager import ManagerMixin

_ATTRIBUTES = {"underline": 4, "blink": 5}
_COLORS = {"red": 31, "green": 32, "yellow": 33, "white": 97}


class FilterDuplicateWarning(logging.Filter):
    """Lets each warning text through once."""

    def __init__(self, name: str = "mmengine") -> None:
        super().__init__(name)
        self.seen: set[Any] = set()

    def filter(self, record: LogRecord) -> bool:
        """Whether to let the record through."""
        if record.levelno != logging.WARNING:
            return True
        if record.msg in self.seen:
            return False
        self.seen.add(record.msg)
        return True


class MMFormatter(logging.Formatter):
    """`time - name - LEVEL - message`; errors also say where they were logged.

    Args:
        color: colour the level, if the terminal shows colours.
        blink: let every level blink; warnings and errors always do where colours are shown.
    """

    _color_mapping: dict[str, str] = {
        "CRITICAL": "red", "ERROR": "red", "WARNING": "yellow", "INFO": "white", "DEBUG": "green",
    }  # fmt: skip

    def __init__(self, color: bool = True, blink: bool = False, **kwargs: Any) -> None:
        assert not (not color and blink), "blink should only be available when color is True"
        super().__init__(**kwargs)
        self._second = -1  # the last second that a line was formatted in, and how it is shown
        self._shown_second = ""
        where = {"ERROR": "%(pathname)s - %(funcName)s - %(lineno)d - "}
        where["CRITICAL"] = where["ERROR"]
        self._styles: dict[str, logging.PercentStyle] = {}
        for level in self._color_mapping:
            prefix = self._get_prefix(level, color, blink or level not in ("INFO", "DEBUG"))
            self._styles[level] = logging.PercentStyle(
                f"%(asctime)s - %(name)s - {prefix} - {where.get(level, '')}%(message)s"
            )

    def _get_prefix(self, level: str, color: bool, blink: bool = False) -> str:
        """The level's name, with terminal codes when there is a terminal for them."""
        if not (color and _shows_colors()):
            return level
        attributes = ["blink", "underline"] if blink else ["underline"]
        codes = [_ATTRIBUTES[name] for name in attributes] + [_COLORS[self._color_mapping[level]]]
        return "".join(f"\033[{code}m" for code in codes) + level + "\033[0m"

    def formatMessage(self, record: LogRecord) -> str:
        """The line in its level's form."""
        style = self._styles.get(record.levelname)
        return style.format(record) if style else super().formatMessage(record)

    def formatTime(self, record: LogRecord, datefmt: str | None = None) -> str:
        """The time, converted once a second: lines come in bursts."""
        if datefmt is None:  # then it shows milliseconds
            return super().formatTime(record)
        second = int(record.created)
        if second != self._second:
            self._second, self._shown_second = second, super().formatTime(record, datefmt)
        return self._shown_second

    def usesTime(self) -> bool:
        """All forms begin with the time."""
        return True


def _shows_colors() -> bool:
    if "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb":
        return False
    return "FORCE_COLOR" in os.environ or (hasattr(sys.stdout, "isatty") and sys.stdout.isatty())


class MMLogger(Logger, ManagerMixin):
    """A logger outside of the hierarchy of `logging`, kept by name.

    Rank 0 writes to the terminal and the file; other ranks write errors to the terminal, and
    their own file when `distributed`. Records of the package's inner parts (the standard logger
    "fasttrain") go to the handlers of the logger made last.

    Args:
        name: the name that the instance is kept under.
        logger_name: the name shown in the lines.
        log_file: path of the file; its folder is made.
        log_level: of the handlers.
        file_mode: "w" or "a".
        distributed: one file per process, named by host, device and rank.
        file_handler_cfg: a class of `logging.handlers` as `type`, and its arguments.
    """

    def __init__(
        self,
        name: str,
        logger_name: str = "mmengine",
        log_file: str | Path | None = None,
        log_level: int | str = "INFO",
        file_mode: str = "w",
        distributed: bool = False,
        file_handler_cfg: dict[str, Any] | None = None,
    ) -> None:
        Logger.__init__(self, logger_name)
        ManagerMixin.__init__(self, name)
        level = logging.getLevelName(log_level) if isinstance(log_level, str) else log_level
        if not isinstance(level, int):
            raise KeyError(
                f"log_level must be one of {list(logging.getLevelNamesMapping())}, got {log_level}"
                if hasattr(logging, "getLevelNamesMapping")
                else f"unknown log_level {log_level}"
            )
        rank, world_size = _get_rank(), _get_world_size()
        stream = logging.StreamHandler(stream=sys.stdout)
        stream.setFormatter(MMFormatter(color=True, datefmt="%m/%d %H:%M:%S"))
        stream.setLevel(level if rank == 0 else logging.ERROR)
        self._add(stream, logger_name)
        self._log_file = log_file
        if log_file is not None:
            if world_size > 1 and distributed:
                path = Path(log_file)
                self._log_file = str(
                    path.with_name(
                        f"{path.stem}_{_get_host_info()}_device{_get_device_id()}"
                        f"_rank{rank}{path.suffix}"
                    )
                )
            if rank == 0 or distributed:
                handler = _make_file_handler(self._log_file, file_mode, file_handler_cfg)
                handler.setFormatter(MMFormatter(color=False, datefmt="%Y/%m/%d %H:%M:%S"))
                handler.setLevel(level)
                self._add(handler, logger_name)
        _Bridge.install()

    def _add(self, handler: logging.Handler, logger_name: str) -> None:
        handler.addFilter(FilterDuplicateWarning(logger_name))
        self.handlers.append(handler)

    @property
    def log_file(self) -> str | Path | None:
        """The path of the log file; `None` without one."""
        return self._log_file

    @classmethod
    def get_current_instance(cls) -> MMLogger:
        """The logger made last; one named "mmengine" when there is none yet."""
        if not cls._instance_dict:
            cls.get_instance("mmengine")
        logger: MMLogger = super().get_current_instance()
        return logger

    def callHandlers(self, record: LogRecord) -> None:
        """Hand a record to this logger's handlers only."""
        for handler in self.handlers:
            if record.levelno >= handler.level:
                handler.handle(record)

    def setLevel(self, level: int | str) -> None:
        """Set the level of the logger itself; `logging`'s own caches do not know it."""
        super().setLevel(level)
        self._cache: dict[int, bool]
        self._cache.clear()


class _Bridge(logging.Handler):
    """Carries records of the standard logger "fasttrain" to the current `MMLogger`, once each."""

    def emit(self, record: LogRecord) -> None:
        if MMLogger._instance_dict:
            MMLogger.get_current_instance().callHandlers(record)

    @classmethod
    def install(cls) -> None:
        """Put one bridge on the standard logger, however many loggers are made."""
        inner = logging.getLogger("fasttrain")
        if not any(isinstance(handler, cls) for handler in inner.handlers):
            inner.addHandler(cls())
            if inner.level == logging.NOTSET:
                inner.setLevel(logging.INFO)


def print_log(msg: Any, logger: Logger | str | None = None, level: int = logging.INFO) -> None:
    """Log a message by whichever logger is meant.

    Args:
        msg: the message.
        logger: a logger; the name of an `MMLogger`; "current" for the one made last; "silent" for
            nothing at all; `None` to print.
        level: the level, as a number.
    Raises:
        ValueError: there is no `MMLogger` of this name.
        TypeError: `logger` is none of these.
    """
    if logger is None:
        print(msg)
    elif isinstance(logger, Logger):
        logger.log(level, msg, stacklevel=2)
    elif logger == "silent":
        pass
    elif logger == "current":
        MMLogger.get_current_instance().log(level, msg, stacklevel=2)
    elif isinstance(logger, str):
        if not MMLogger.check_instance_created(logger):
            raise ValueError(
                f"MMLogger: {logger} has not been created! "
                f"There are {list(MMLogger._instance_dict)}"
            )
        MMLogger.get_instance(logger).log(level, msg, stacklevel=2)
    else:
        raise TypeError(
            '`logger` should be either a logging.Logger object, str, "silent", "current" or None, '
            f"but got {type(logger)}"
        )


def _make_file_handler(
    path: str | Path | None, mode: str, cfg: dict[str, Any] | None
) -> logging.Handler:
    assert path is not None
    Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    if cfg is None:
        return logging.FileHandler(path, mode, encoding="utf-8")
    assert "type" in cfg, f"file_handler_cfg must have the key 'type', got {cfg}"
    arguments = {"filename": path, **cfg}
    name = arguments.pop("type")
    known = _get_logging_file_handlers()
    if name not in known:
        raise ValueError(
            f"`logging.handlers` does not contain {name}; file handlers are {sorted(known)}"
        )
    if name == "BaseRotatingHandler":
        arguments.setdefault("mode", mode)
    handler: logging.Handler = known[name](**arguments)
    return handler


def _get_logging_file_handlers() -> dict[str, type[logging.Handler]]:
    """The classes of `logging.handlers` that write files."""
    return {
        name: found
        for name, found in vars(logging.handlers).items()
        if isinstance(found, type) and issubclass(found, logging.FileHandler)
    }


def _get_rank() -> int:
    return core_dist.rank()


def _get_world_size() -> int:
    return core_dist.world_size()


def _get_device_id() -> int | str:
    """The physical index (or the identifier) of this process's GPU; 0 without one."""
    if not torch.cuda.is_available():
        return 0
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    if local_rank >= len(visible) or not visible[local_rank]:
        return local_rank
    device = visible[local_rank]
    return int(device) if device.isdigit() else device


def _get_host_info() -> str:
    """`user@host`; what cannot be found out is left empty."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError, ImportError):  # no password database entry for this user
        return ""
