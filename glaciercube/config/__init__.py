"""One YAML configuration, composed of each room's own options, with errors that name the line."""

from glaciercube.config.job import Config, ModelConfig, RegionConfig
from glaciercube.config.sets import CubeConfig, SetConfig
from glaciercube.config.text import load_config, parse_config

__all__ = ["Config", "CubeConfig", "ModelConfig", "RegionConfig", "SetConfig", "load_config", "parse_config"]
