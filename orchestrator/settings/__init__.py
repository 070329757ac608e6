"""What an operator configured, and how it is read.

The one place that reads the environment.
"""

from orchestrator.providers import ModelSettings, ProviderSettings
from orchestrator.settings.document import Settings
from orchestrator.settings.figures import parse_size
from orchestrator.settings.loading import load

__all__ = ["ModelSettings", "ProviderSettings", "Settings", "load", "parse_size"]
