"""Parts of the config language under the names that other tools import from here."""

from fasttrain.utils.package_utils import PROJECTS as MODULE2PACKAGE

from .import_transformer import ImportTransformer, _gather_abs_import_lazyobj
from .language import ConfigParsingError
from .model_index import indexed_config as _get_external_cfg_path
from .model_index import model_info as _get_cfg_metainfo
from .model_index import split_package_path as _get_package_and_cfg_path
from .places import find_below as _get_external_cfg_base_path
from .python_text import is_standard_library as _is_builtin_module

__all__ = [
    "MODULE2PACKAGE",
    "ConfigParsingError",
    "ImportTransformer",
    "_gather_abs_import_lazyobj",
    "_get_cfg_metainfo",
    "_get_external_cfg_base_path",
    "_get_external_cfg_path",
    "_get_package_and_cfg_path",
    "_is_builtin_module",
]
