import logging
import re
from collections import OrderedDict
from logging.handlers import RotatingFileHandler, TimedRotatingFileHandler
from pathlib import Path

import pytest

from fasttrain.logging import MMLogger, logger, print_log
from fasttrain.logging.logger import MMFormatter, _get_device_id

SHORT = r"\d{2}/\d{2} \d{2}:\d{2}:\d{2}"
LONG = r"\d{4}/\d{2}/\d{2} \d{2}:\d{2}:\d{2}"


@pytest.fixture(autouse=True)
def fresh_loggers(monkeypatch: pytest.MonkeyPatch):
    instances: OrderedDict = OrderedDict()
    monkeypatch.setattr(MMLogger, "_instance_dict", instances)
    for name in ("FORCE_COLOR", "NO_COLOR", "CUDA_VISIBLE_DEVICES", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    yield
    for made in instances.values():
        for handler in made.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.close()


def be_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int) -> None:
    monkeypatch.setattr(logger, "_get_rank", lambda: rank)
    monkeypatch.setattr(logger, "_get_world_size", lambda: world_size)
    monkeypatch.setattr(logger, "_get_host_info", lambda: "me@host")


def close(made: MMLogger) -> None:
    for handler in made.handlers:
        handler.close()


def test_a_logger_of_its_own() -> None:
    made = MMLogger.get_instance("one", log_level="INFO")
    assert (made.name, made.instance_name, made.log_file) == ("mmengine", "one", None)
    assert made.parent is None and made.level == logging.NOTSET
    assert [type(handler) for handler in made.handlers] == [logging.StreamHandler]
    assert made.handlers[0].level == logging.INFO
    assert MMLogger.get_instance("one") is made is MMLogger.get_current_instance()
    assert MMLogger.get_instance("two", logger_name="other").name == "other"


def test_the_first_asked_for_is_made() -> None:
    assert MMLogger.get_current_instance().instance_name == "mmengine"


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING"])
def test_lines(level: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "new" / "a.log"
    made = MMLogger.get_instance("one", log_file=path, log_level=level)
    made.log(logging.getLevelName(level), "welcome %s", "all")
    line = f" - mmengine - {level} - welcome all\n"
    assert re.fullmatch(SHORT + line, capsys.readouterr().out)
    assert re.fullmatch(LONG + line, path.read_text())
    assert made.log_file == path


def test_errors_say_where(capsys: pytest.CaptureFixture) -> None:
    made = MMLogger.get_instance("one")
    made.error("bad")
    print_log("worse", made, logging.CRITICAL)
    lines = capsys.readouterr().out.splitlines()
    for line, level, text in zip(lines, ("ERROR", "CRITICAL"), ("bad", "worse"), strict=True):
        assert re.fullmatch(
            rf"{SHORT} - mmengine - {level} - .*test_logger\.py - test_errors_say_where - \d+ - "
            + text,
            line,
        )


def test_levels(capsys: pytest.CaptureFixture) -> None:
    made = MMLogger.get_instance("one", log_level="WARNING")
    made.info("too low")
    assert made.isEnabledFor(logging.INFO)
    made.setLevel("ERROR")
    assert not made.isEnabledFor(logging.INFO)
    made.warning("too low as well")
    assert capsys.readouterr().out == ""
    with pytest.raises(KeyError, match=r"log_level must be one of .*, got LOUD|unknown log_level"):
        MMLogger("two", log_level="LOUD")


def test_a_warning_is_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made = MMLogger.get_instance("one", log_file=tmp_path / "a.log")
    for _ in range(2):
        made.warning("again")
        made.info("again")
    for text in (capsys.readouterr().out, (tmp_path / "a.log").read_text()):
        assert re.findall("WARNING|INFO", text) == ["WARNING", "INFO", "INFO"]


def test_colors_follow_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    record = logging.LogRecord("name", logging.WARNING, "path", 1, "text", None, None)
    assert "\033" not in MMFormatter(color=True).format(record)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\033[5m\033[4m\033[33mWARNING\033[0m - text" in MMFormatter(color=True).format(record)
    record.levelno, record.levelname = logging.INFO, "INFO"
    assert "\033[4m\033[97mINFO\033[0m" in MMFormatter(color=True).format(record)
    assert "\033[5m" in MMFormatter(color=True, blink=True).format(record)
    assert "\033" not in MMFormatter(color=False).format(record)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in MMFormatter(color=True).format(record)
    with pytest.raises(AssertionError, match=r"blink should only be available when color"):
        MMFormatter(color=False, blink=True)


@pytest.mark.parametrize(
    ("rank", "world_size", "distributed", "file"),
    [
        (0, 1, True, "t.log"),
        (0, 4, False, "t.log"),
        (0, 4, True, "t_me@host_device0_rank0.log"),
        (3, 4, False, None),
        (3, 4, True, "t_me@host_device0_rank3.log"),
    ],
)
def test_ranks(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    rank: int,
    world_size: int,
    distributed: bool,
    file: str | None,
) -> None:
    be_rank(monkeypatch, rank, world_size)
    made = MMLogger("one", log_file=str(tmp_path / "t.log"), distributed=distributed)
    assert made.handlers[0].level == (logging.INFO if rank == 0 else logging.ERROR)
    assert [path.name for path in tmp_path.iterdir()] == ([] if file is None else [file])
    if file is not None:
        assert made.log_file == str(tmp_path / file)
    close(made)


def test_the_device_in_a_file_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _get_device_id() == 0
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert _get_device_id() == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 7")
    assert _get_device_id() == 7
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-abc")
    assert _get_device_id() == "GPU-abc"


def test_other_file_handlers(tmp_path: Path) -> None:
    def handler(cfg: dict) -> logging.Handler:
        made = MMLogger("one", log_file=tmp_path / "a.log", file_handler_cfg=cfg)
        close(made)
        return made.handlers[1]

    cfg = {"type": "RotatingFileHandler", "maxBytes": 1024}
    rotating = handler(cfg)
    assert isinstance(rotating, RotatingFileHandler) and rotating.maxBytes == 1024
    assert cfg == {"type": "RotatingFileHandler", "maxBytes": 1024}
    assert isinstance(handler({"type": "TimedRotatingFileHandler"}), TimedRotatingFileHandler)
    assert isinstance(handler({"type": "BaseRotatingHandler", "mode": "a"}), logging.FileHandler)
    with pytest.raises(ValueError, match=r"`logging.handlers` does not contain Rotating; file"):
        handler({"type": "Rotating"})
    with pytest.raises(AssertionError, match=r"must have the key 'type', got {'maxBytes': 1}"):
        handler({"maxBytes": 1})


def test_inner_parts_reach_the_current_logger_once(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    MMLogger.get_instance("first", log_file=tmp_path / "first.log")
    MMLogger.get_instance("second", log_file=tmp_path / "second.log")
    logging.getLogger("fasttrain.core.update").warning("inner %d", 1)
    assert capsys.readouterr().out.count("inner 1") == 1
    assert (tmp_path / "first.log").read_text() == ""
    assert re.fullmatch(
        LONG + r" - fasttrain\.core\.update - WARNING - inner 1\n",
        (tmp_path / "second.log").read_text(),
    )


def test_print_log(capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture) -> None:
    print_log(1)
    print_log("nothing", "silent")
    assert capsys.readouterr().out == "1\n"
    print_log("current", logger="current")
    print_log("named", "mmengine", logging.WARNING)
    out = capsys.readouterr().out
    assert "INFO - current\n" in out and "WARNING - named\n" in out
    with caplog.at_level(logging.INFO):
        print_log("standard", logging.getLogger("somewhere"))
    assert caplog.messages == ["standard"]
    with pytest.raises(ValueError, match=r"MMLogger: other has not been created!"):
        print_log("x", "other")
    with pytest.raises(TypeError, match=r"`logger` should be either .* but got <class 'int'>"):
        print_log("x", 3)  # type: ignore[arg-type]
