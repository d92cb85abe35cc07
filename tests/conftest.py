"""For every test: generated examples have no deadline each, because a busy machine is no failure."""

from hypothesis import settings

settings.register_profile("rankdeck", deadline=None)
settings.load_profile("rankdeck")
