"""Contexts from files and folders, for the command line and for Python alike.

Without it a run would be paid for over half a file, over mojibake, over somebody's keys, or over
nothing. Every refusal comes before anything is started.
"""

from orchestrator.context_files.domain import guess_domain
from orchestrator.context_files.found import ContextShape, FoundContext
from orchestrator.context_files.reading import read_paths, read_stream

__all__ = ["ContextShape", "FoundContext", "guess_domain", "read_paths", "read_stream"]
