"""A stand-in for XTuner 0.2.0, which wants GPUs and gigabytes: its command, and a training that only counts."""
