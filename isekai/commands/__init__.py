"""Commands of the command line that are about datasets; `isekai.cli` puts all together."""
