"""What travels to the nodes: standard library only, Python 3.8 and later."""
