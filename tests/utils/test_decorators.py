"""Deprecations, and what a function needs to be installed."""

import logging

import pytest

from fasttrain import utils


def test_deprecated_api_warning():
    @utils.deprecated_api_warning({"old": "new"}, cls_name="Thing")
    def run(new=1):
        return new

    assert run(new=2) == 2 and run() == 1
    with pytest.warns(DeprecationWarning, match='"old" is deprecated in `Thing.run`, please use'):
        assert run(old=3) == 3
    with pytest.raises(AssertionError, match="got them in the arguments at the same time"):
        run(old=3, new=4)


def test_deprecated_function(caplog):
    @utils.deprecated_function("0.1", "0.3", "use other")
    def run(x):
        """Run."""
        return x

    with caplog.at_level(logging.WARNING, "fasttrain.utils"):
        assert run(1) == 1 and run(2) == 2
    assert len(caplog.records) == 1
    assert "run' is deprecated in version 0.1 and will be removed in version 0.3" in caplog.text
    assert ".. deprecated:: 0.1" in run.__doc__ and run.__doc__.endswith("Run.")


def test_requirements():
    @utils.requires_package(["sys", "not_a_module"])
    def packages():
        return True

    @utils.requires_executable("not-a-program")
    def programs():
        return True

    with pytest.raises(RuntimeError, match='Prerequisites "not_a_module" are required in method'):
        packages()
    with pytest.raises(RuntimeError, match='"not-a-program" are required in method "programs"'):
        programs()
    assert utils.requires_package("sys")(lambda: 1)() == 1


def test_the_docstring_of_a_deprecated_function():
    def run():
        """Run.

        Args:
            none
        """

    run = utils.deprecated_function(since="0.1", removed_in="0.3", instructions="walk")(run)
    assert run.__doc__ == (
        ".. deprecated:: 0.1\n"
        "    Deprecated and will be removed in version 0.3.\n"
        "    Please walk.\n\n\n"
        "    Run.\n\n"
        "    Args:\n"
        "        none\n"
    )


def test_what_is_missing_is_printed_too(capsys):
    with pytest.raises(RuntimeError):
        utils.requires_package("not_a_module")(len)([])
    assert capsys.readouterr().out == (
        'Prerequisites "not_a_module" are required in method "len" but not found, please install '
        "them first.\n"
    )
