"""For every test: generated examples have no deadline each, because a busy machine is no failure; and what tests
start can be interrupted and hung up on, also where they run in the background of a shell or below nohup.
"""

import signal

from hypothesis import settings

settings.register_profile("rankdeck", deadline=None)
settings.load_profile("rankdeck")

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
