"""How episodes are made: one file a task family, one plain function each."""
