"""What can be wrong with a run before it trains; both texts are for people, and no traceback is needed beside them."""


class ConfigError(ValueError):
    """A key, value or file that cannot be used; the text says what to write instead. Exit status 2."""


class RanksError(RuntimeError):
    """This rank is well, and cannot go on because of others; the text names them. Exit status 1."""
