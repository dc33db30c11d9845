"""Code written for mmengine runs on fasttrain; what that lacks comes from an installed mmengine.

Each case runs in a process of its own, since what is tested is the import system's state.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def run_python(
    *arguments: str, path: Path | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path or "")}
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True, text=True, check=False, timeout=120, env=environment, cwd=cwd,
    )  # fmt: skip


def check(code: str, path: Path | None = None) -> str:
    done = run_python("-c", textwrap.dedent(code), path=path)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def other_mmengine(tmp_path: Path) -> Path:
    """A folder with an installed package `mmengine` that has rooms of its own and others."""
    files = {
        "__init__.py": "raise AssertionError('the top of the installed package ran')",
        "registry/__init__.py": "raise AssertionError('the installed registry ran')",
        "fileio/__init__.py": "from mmengine.registry import Registry\ndef load(): return 'loaded'",
        "fileio/io.py": "PLACE = __file__",
        "utils/__init__.py": "MARK = 'installed utils'",
        "structures/__init__.py": "from mmengine.fileio import load\nclass InstanceData: ...",
    }
    for name, text in files.items():
        target = tmp_path / "site" / "mmengine" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return tmp_path / "site"


def test_rooms_are_the_same_module_objects() -> None:
    check(
        """
        import importlib
        import fasttrain.dropin as dropin
        dropin.install()
        for room in sorted(dropin.ROOMS):
            ours = importlib.import_module(f"fasttrain.{room}")
            assert importlib.import_module(f"mmengine.{room}") is ours, room
            assert ours.__spec__.name == ours.__name__ == f"fasttrain.{room}"
        import mmengine.hooks.hook, fasttrain.hooks.hook
        from mmengine.hooks.hook import Hook
        assert mmengine.hooks.hook is fasttrain.hooks.hook
        assert Hook is fasttrain.hooks.Hook
        """
    )


def test_top_level_names_are_found_when_asked_for() -> None:
    check(
        """
        import fasttrain.dropin
        fasttrain.dropin.install()
        import mmengine
        assert mmengine.__version__.startswith("0.10.")
        assert mmengine.version_info[:2] == (0, 10)
        from mmengine import Registry
        from mmengine.version import __version__
        assert __version__ == mmengine.__version__
        import fasttrain.registry
        assert Registry is mmengine.Registry is fasttrain.registry.Registry
        assert mmengine.runner.Runner is __import__("fasttrain.runner").runner.Runner
        assert {"Config", "MMLogger", "runner", "__version__"} <= set(dir(mmengine))
        try:
            mmengine.no_such_name
        except AttributeError as error:
            assert str(error) == "module 'mmengine' has no attribute 'no_such_name'"
        else:
            raise AssertionError
        """
    )


def test_missing_parts_are_named() -> None:
    output = check(
        """
        import sys
        import fasttrain.dropin
        fasttrain.dropin.install()
        finder = sys.meta_path[0]
        finder.search_path = []  # as where no mmengine is installed
        for name in ("mmengine.structures", "mmengine.runner.no_such_module"):
            try:
                __import__(name)
            except ModuleNotFoundError as error:
                assert error.name == name
                print(error)
        import mmengine.utils, fasttrain.utils
        assert mmengine.utils is fasttrain.utils
        """
    )
    assert output.splitlines() == [
        "No module named 'mmengine.structures': fasttrain does not have this part of mmengine; "
        "`pip install mmengine` beside fasttrain and it is taken from there",
        "No module named 'mmengine.runner.no_such_module': fasttrain stands in for mmengine here "
        "and has no module fasttrain.runner.no_such_module",
    ]


def test_other_parts_fall_through_to_an_installed_mmengine(other_mmengine: Path) -> None:
    check(
        """
        import fasttrain.dropin
        fasttrain.dropin.install()
        from mmengine.structures import InstanceData
        import mmengine.fileio.io, mmengine.utils, fasttrain.registry
        assert InstanceData.__module__ == "mmengine.structures"
        assert mmengine.fileio.Registry is fasttrain.registry.Registry
        assert "site" in mmengine.fileio.io.PLACE
        assert mmengine.utils.MARK == "installed utils"
        assert mmengine.load() == "loaded"
        assert mmengine.__file__.endswith("__init__.py")
        """,
        path=other_mmengine,
    )


def test_install_is_idempotent_and_uninstall_undoes_it(other_mmengine: Path) -> None:
    check(
        """
        import sys
        import fasttrain.dropin as dropin
        dropin.install(); dropin.install()
        assert sum(type(finder).__name__ == "_DropinFinder" for finder in sys.meta_path) == 1
        import mmengine.registry
        dropin.uninstall(); dropin.uninstall()
        assert not [name for name in sys.modules if name.startswith("mmengine")]
        try:
            import mmengine
        except AssertionError as error:
            assert str(error) == "the top of the installed package ran"
        else:
            raise AssertionError
        """,
        path=other_mmengine,
    )


def test_install_after_mmengine_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "mmengine.py").write_text("")
    done = run_python(
        "-c", "import mmengine, fasttrain.dropin; fasttrain.dropin.install()", path=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "RuntimeError: fasttrain.dropin.install() must run before anything imports mmengine, but 1 "
        "of its modules are imported already (first: mmengine); call it at the very top of the "
        "script, or start the script with `python -m fasttrain.dropin SCRIPT`"
    )


def test_runs_a_script_as_python_would(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("NAME = 'beside'")
    (tmp_path / "script.py").write_text(
        "import sys, beside\n"
        "from mmengine.registry import Registry\n"
        "print(__name__, sys.argv[1:], beside.NAME, Registry.__module__)\n"
        "import fasttrain.dropin\n"
        "fasttrain.dropin.install()\n"
        "sys.exit(3)\n"
    )
    done = run_python("-m", "fasttrain.dropin", str(tmp_path / "script.py"), "--flag", "1")
    assert done.returncode == 3, done.stderr
    assert done.stdout == "__main__ ['--flag', '1'] beside fasttrain.registry.registry\n"


def test_runs_a_module(tmp_path: Path) -> None:
    (tmp_path / "tool.py").write_text(
        "import sys, mmengine\nprint(__name__, sys.argv[1:], mmengine.__version__)"
    )
    done = run_python("-m", "fasttrain.dropin", "-m", "tool", "x", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "__main__ ['x'] 0.10.7\n"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "usage: python -m fasttrain.dropin SCRIPT"),
        (["--help"], 0, "usage: python -m fasttrain.dropin SCRIPT"),
        (["-m"], 2, "error: -m needs the name of a module"),
        (["no/such.py"], 2, "error: no such script: no/such.py"),
    ],
)
def test_bad_command_lines(arguments: list[str], code: int, text: str) -> None:
    done = run_python("-m", "fasttrain.dropin", *arguments)
    assert done.returncode == code
    assert text in done.stdout + done.stderr
