"""The model that a runner trains, and what prepares its data."""

from fasttrain.model.base_model.base_model import BaseModel
from fasttrain.model.base_model.data_preprocessor import BaseDataPreprocessor, ImgDataPreprocessor

__all__ = ["BaseDataPreprocessor", "BaseModel", "ImgDataPreprocessor"]
