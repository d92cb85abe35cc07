"""For every test: generated examples have no deadline each, because a busy machine is no failure; and an interrupt
interrupts, also what tests start, where they run in the background of a shell (which has it ignored).
"""

import signal

from hypothesis import settings

settings.register_profile("rankdeck", deadline=None)
settings.load_profile("rankdeck")

signal.signal(signal.SIGINT, signal.default_int_handler)
