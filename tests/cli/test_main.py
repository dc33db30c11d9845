"""Exit statuses and messages of the command line."""

import subprocess
import sys

import pytest

from fasttrain.cli import main
from fasttrain.cli.errors import UsageError, describe, user_input
from fasttrain.cli.main import one_paragraph


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, text in ((["--version"], "fasttrain 0."), (["--help"], "doctor")):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert text in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "the following arguments are required: command"),
        (["fly"], "invalid choice: 'fly'"),
        (["train"], "the following arguments are required: CONFIG"),
        (["train", "c.py", "--launcher", "rocket"], "invalid choice: 'rocket'"),
    ],
)
def test_bad_usage(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fasttrain", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("fasttrain ")


def raise_error(error: BaseException) -> None:
    with user_input("cannot load the config c.py"):
        raise error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("expected 1, got 2"), "expected 1, got 2"),
        (KeyError("type"), "missing key 'type'"),
        (KeyError("X is not in the registry"), "X is not in the registry"),
        (SyntaxError("invalid syntax", ("c.py", 3, 1, "a = = 1")), "c.py, line 3: invalid syntax"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_user_errors_become_one_message(error: Exception, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        raise_error(error)
    assert str(caught.value) == f"cannot load the config c.py: {text}"
    assert caught.value.__cause__ is error
    assert describe(error) == text


def test_interrupts_are_no_user_errors() -> None:
    with pytest.raises(KeyboardInterrupt):
        raise_error(KeyboardInterrupt())


def test_paragraphs_are_wrapped_and_point_to_debug() -> None:
    try:
        raise_error(ValueError("a long text\n\n  over lines " + "word " * 40))
    except UsageError as error:
        text = one_paragraph(error)
    lines = text.splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 100
    assert text.startswith("error: cannot load the config c.py: a long text over lines word")
    assert text.endswith("(--debug shows the traceback.)")
