"""Rules: the logs and the failures of all nodes -> the first real failure, its evidence and its remedy. Pure.

torchrun names a root cause for each node, and on every node but one that is a victim: a rank whose peer went away. The
root is the earliest failure, over all nodes, that is not a victim's.

    lines     text -> lines, with the rank that each is of          marks    what stands before them, and is taken off
    nodes     lines -> those of each worker, and torchrun's own     traces   lines -> tracebacks
    agent     what torchrun says of its workers                     deaths   what ended badly, with what it wrote
    rules/    the table: texts, what they mean, what to do          explain  a death -> the rule that fits
    case      the words of a verdict                                verdict  which of them was first
    watchdog  NCCL's timeouts, compared over ranks                  suspects who hung or vanished

To add a rule, add an entry to one of the files in rules/ and a case to tests/unit/diagnosis.
"""

from engine.diagnosis.case import Proof, Verdict, ending, sentence
from engine.diagnosis.deaths import Failure
from engine.diagnosis.lines import Kind, Source
from engine.diagnosis.verdict import diagnose

__all__ = ["Failure", "Kind", "Proof", "Source", "Verdict", "diagnose", "ending", "sentence"]
