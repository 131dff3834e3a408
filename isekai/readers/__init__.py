"""How other data sets are read: one file a layout, one plain function each that gives a Dataset."""
