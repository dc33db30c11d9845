"""Parts of the config language that tools import from here."""

from .import_transformer import ImportTransformer, _gather_abs_import_lazyobj
from .language import ConfigParsingError
from .python_text import is_standard_library as _is_builtin_module

__all__ = [
    "ConfigParsingError",
    "ImportTransformer",
    "_gather_abs_import_lazyobj",
    "_is_builtin_module",
]
