"""Studies: declared experiments over the engine's paths, run in random interleaved order, with intervals.

docs/study.md says how a study is declared and what its results hold.
"""
