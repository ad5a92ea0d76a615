"""Algorithms on finite processes given as arrays, where every answer can be checked against an exact one."""
