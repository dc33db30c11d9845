"""Lazy configs."""

import copy
import pickle
import textwrap

import pytest

from fasttrain.config import Config, ConfigDict, read_base
from fasttrain.config.language import ConfigParsingError
from fasttrain.config.lazy import LazyObject
from fasttrain.config.lazy_file import load_lazy
from fasttrain.registry import Registry


@pytest.fixture
def write(tmp_path):
    def write_files(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return str(tmp_path / next(iter(files)))

    return write_files


BASES = {
    "_base_/model.py": """
        from collections import OrderedDict
        from zoo_of_lazy.models import Net
        import torch.optim
        model = dict(type=Net, depth=1, head=dict(type=torch.optim.SGD, k=2))
        lr = 0.1
        _hidden = 3
        def scaled(value):
            return value * 10
    """,
    "_base_/schedule.py": """
        from fasttrain.config import read_base
        with read_base():
            from .epochs import *
        twice = epochs * 2
    """,
    "_base_/epochs.py": "epochs = 3\nhooks = [dict(a=1), 2]\n",
}


def main(body):
    head = (
        "from mmengine.config import read_base\nfrom torch.optim import Adam\n"
        "with read_base():\n    from ._base_.model import *\n    from ._base_.schedule import *\n"
    )
    return {"main.py": head + textwrap.dedent(body), **BASES}


def test_bases_are_inherited_and_changed(write):
    cfg = Config.fromfile(
        write(
            main("""
                model.update(dict(head=dict(type=Adam), new=1))
                model.depth = scaled(lr)
                hooks[0].update(b=2)
                optimizer = dict(type=Adam, lr=lr * 2)
            """)
        )
    )
    assert cfg.to_dict() == {
        "model": {
            "type": "zoo_of_lazy.models.Net",
            "depth": 1.0,
            "head": {"type": "torch.optim.Adam", "k": 2},
            "new": 1,
        },
        "lr": 0.1,
        "_hidden": 3,
        "epochs": 3,
        "hooks": [{"a": 1, "b": 2}, 2],
        "twice": 6,
        "optimizer": {"type": "torch.optim.Adam", "lr": 0.2},
    }
    assert cfg._imported_names == {"OrderedDict", "Net", "torch", "Adam"}
    assert cfg.to_dict(keep_imported=True)["Net"] == "zoo_of_lazy.models.Net"
    assert isinstance(cfg._to_lazy_dict()["optimizer"]["type"], LazyObject)
    assert type(cfg.model.head) is ConfigDict and cfg.text.startswith("from mmengine.config")


def test_types_are_imported_when_read_and_when_built(write):
    import torch
    from torch.optim import Adam

    cfg = Config.fromfile(write(main("optimizer = dict(type=Adam, lr=0.5)")))
    assert cfg.optimizer.type is Adam and cfg.Adam is Adam
    registry = Registry("optimizer")
    params = [torch.nn.Parameter(torch.zeros(1))]
    assert type(registry.build(cfg.optimizer, default_args={"params": params})) is Adam
    with pytest.raises(ImportError, match=r"main.py|model.py"):
        _ = cfg.model.type


def test_reading_in_the_file_imports_nothing(write):
    cfg = Config.fromfile(write(main("same = model.type\nsub = model['head'].get('type')")))
    lazy = cfg._to_lazy_dict()
    assert lazy["same"].dotted_path == "zoo_of_lazy.models.Net"
    assert lazy["sub"].dotted_path == "torch.optim.SGD"


def test_names_from_bases(write):
    cfg = Config.fromfile(
        write({
            "main.py": """
                with read_base():
                    from ._base_.epochs import epochs as n, hooks
                total = n + 1
            """,
            **BASES,
        })
    )  # fmt: skip
    assert cfg.to_dict() == {"n": 3, "hooks": [{"a": 1}, 2], "total": 4}


def test_bases_above_and_in_packages(write, tmp_path, monkeypatch):
    path = write({
        "deep/main.py": """
            with read_base():
                from .._base_.epochs import *
                from config_pack.configs.sub.a import a
                from config_pack.configs.b import b
        """,
        "config_pack/__init__.py": "raise RuntimeError('not to be imported')",
        "config_pack/configs/sub/a.py": "a = 1",
        "config_pack/.mim/configs/b.py": "b = 2",
        **BASES,
    })  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    assert Config.fromfile(path).to_dict() == {"epochs": 3, "hooks": [{"a": 1}, 2], "a": 1, "b": 2}


def test_what_comes_with_python_is_used_right_away(write):
    path = write({
        "main.py": """
            import os.path as osp
            from functools import partial
            from os.path import basename
            import torch
            joined = osp.join('a', 'b')
            name = partial(basename, __file__)()
            f = torch.relu
        """
    })  # fmt: skip
    cfg = Config.fromfile(path)
    assert cfg.to_dict() == {"joined": "a/b", "name": "main.py", "f": "torch.relu"}
    assert set(Config.fromstring(cfg.dump(), ".py")) == {"joined", "name", "f"}


def test_dump_and_reload(write, tmp_path):
    cfg = Config.fromfile(write(main("optimizer = dict(type=Adam)\nnothing = None")))
    cfg.dump(tmp_path / "dumped.py")
    again = Config.fromfile(tmp_path / "dumped.py")
    assert again.to_dict() == cfg.to_dict() and again.pretty_text == cfg.pretty_text
    from torch.optim import Adam

    assert Registry("o").get(again.optimizer.type) is Adam


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda cfg: pickle.loads(pickle.dumps(cfg))]
)
def test_copies(write, copied):
    cfg = Config.fromfile(write(main("optimizer = dict(type=Adam)")))
    other = copied(cfg)
    assert other._to_lazy_dict() == cfg._to_lazy_dict() and other.to_dict() == cfg.to_dict()
    assert other._imported_names == cfg._imported_names


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({"main.py": "from zoo import Cat\na = = 1"}, SyntaxError, r"main.py, line 2: invalid"),
        ({"main.py": "from zoo import Cat\na = Cat()"}, RuntimeError, r"zoo.Cat' cannot be called"),
        ({"main.py": "from zoo import *"}, ConfigParsingError, r"main.py, line 1: Illegal syntax"),
        (
            {"main.py": "with read_base():\n    a = 1"},
            ConfigParsingError,
            r"main.py, line 2: Illegal syntax in config file! Only `from ... import ...`",
        ),
        (
            {"main.py": "with read_base():\n    from .nothing import *"},
            ConfigParsingError,
            r"nothing.py not found! It means that incorrect module is defined in `with read_base",
        ),
        (
            {"main.py": "with read_base():\n    from not_a_package.x import *"},
            ModuleNotFoundError,
            "Package not_a_package is not installed",
        ),
        (
            {"main.py": "with read_base():\n    from json.x import *"},
            FileNotFoundError,
            r"the config 'x.py' is neither .*/json/.mim/configs/x.py nor",
        ),
        (
            {"main.py": "with read_base():\n    from .b import *", "b.py": "_base_ = 'c.py'"},
            ConfigParsingError,
            r"b.py has `_base_ = ...`: use `with read_base\(\)",
        ),
        (
            {"main.py": "_base_ = 'b.py'", "b.py": "with read_base():\n    from .c import *"},
            ConfigParsingError,
            r"b.py uses `with read_base\(\): ...` or .* main.py names it in `_base_`",
        ),
        (
            {"main.py": "with read_base():\n    from .b import *",
             "b.py": "with read_base():\n    from .main import *"},
            ConfigParsingError,
            r"the configs read each other: .*main.py -> .*b.py -> .*main.py",
        ),
    ],
)  # fmt: skip
def test_errors(write, files, error, message):
    path = write(files)
    with pytest.raises(error, match=message.replace(" main.py", " .*main.py")):
        Config.fromfile(path)


def test_an_error_within_a_base_shows_its_line(write):
    path = write({"main.py": "with read_base():\n    from .b import *", "b.py": "a = 1\nb = 1 / 0"})
    with pytest.raises(ZeroDivisionError) as caught:
        Config.fromfile(path)
    assert caught.traceback[-1].path.name == "b.py" and caught.traceback[-1].lineno == 1


def test_load_lazy_gives_helpers_too(write):
    names, imported = load_lazy(write({"main.py": "import zoo\ndef f(): pass\na = None"}))
    assert set(names) == {"zoo", "f", "a"} and imported == {"zoo"}


def test_read_base_outside_a_config_does_nothing():
    with read_base() as nothing:
        assert nothing is None
