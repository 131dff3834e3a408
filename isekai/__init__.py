"""Draw things that never existed, and measure whether a model learns their names from context."""

__version__ = "0.1.0.dev0"
