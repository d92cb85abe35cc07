"""The training engine: standard library and torch only; it travels to the nodes in the same zip."""
