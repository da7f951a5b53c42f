"""Differential runs: one program of accesses on the engine and on another implementation, every answer compared.

A program is an array of engine.ACC records whose times are the clock; records of the spaces ACK, KEY and LINE are an
interrupt taken, a key typed and an input line driven.  `board` knows the parts and what may differ, `programs` makes
programs from register maps, `sides` run them from power-on, `judge` finds the first difference that no entry of
engine/data/differences.toml explains and makes the program short.  docs/diff.md.
"""
