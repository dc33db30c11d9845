"""Classes whose instances are kept by name and can be asked for from anywhere."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections import OrderedDict
from typing import Any, TypeVar

T = TypeVar("T")

# One lock for all classes: a constructor may ask for an instance of another managed class, and
# with a lock per class two threads could wait for each other.
_LOCK = threading.RLock()


class ManagerMeta(type):
    """Gives every class of its own an instance table, so that subclasses do not share one.

    Raises:
        AssertionError: the class's constructor has no `name` parameter.
    """

    _instance_dict: OrderedDict[str, Any]

    def __init__(cls, *args: Any) -> None:
        cls._instance_dict = OrderedDict()
        parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
        assert "name" in parameters, f"{cls} must have the `name` argument in its constructor"
        super().__init__(*args)


class ManagerMixin(metaclass=ManagerMeta):
    """Base of classes whose instances are found by name.

    Args:
        name: the instance's name, not empty.
    """

    def __init__(self, name: str = "", **kwargs: Any) -> None:
        assert isinstance(name, str) and name, (
            f"name argument must be an non-empty string, but got {name!r}."
        )
        self._instance_name = name

    @classmethod
    def get_instance(cls: type[T], name: str, **kwargs: Any) -> T:
        """Return the instance called `name`; the first call builds it from `kwargs`."""
        assert isinstance(name, str), f"type of name should be str, but got {type(name)}"
        instances: OrderedDict[str, T] = cls._instance_dict  # type: ignore[attr-defined]
        with _LOCK:
            if name not in instances:
                instances[name] = cls(name=name, **kwargs)  # type: ignore[call-arg]
                return instances[name]
            instance = instances[name]
        if kwargs:
            warnings.warn(
                f"{cls} instance named of {name} has been created, "
                "the method `get_instance` should not accept any other arguments; "
                f"{sorted(kwargs)} is ignored",
                stacklevel=2,
            )
        return instance

    @classmethod
    def get_current_instance(cls) -> Any:
        """Return the instance that was created last.

        Raises:
            RuntimeError: the class has no instance yet.
        """
        with _LOCK:
            if cls._instance_dict:
                return cls._instance_dict[next(reversed(cls._instance_dict))]
        raise RuntimeError(
            f"Before calling {cls.__name__}.get_current_instance(), you should call "
            "get_instance(name=xxx) at least once."
        )

    @classmethod
    def check_instance_created(cls, name: str) -> bool:
        """Whether `get_instance(name)` has been called before."""
        return name in cls._instance_dict

    @property
    def instance_name(self) -> str:
        """The name that the instance is kept under."""
        return self._instance_name
