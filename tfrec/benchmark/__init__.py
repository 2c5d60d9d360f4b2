"""Measurements: tfrec benchmark NAME --json FILE

Two ways of doing the same thing alternate within one run and compared as a ratio; absolute times of a
shared machine say little.
"""
