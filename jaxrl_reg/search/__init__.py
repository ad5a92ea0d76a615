"""Search without gradients: repertoires of solutions, and emitters that improve some.

Settings of agents are drawn and judged elsewhere, by ``population.search``; here policies themselves are looked for.
"""
