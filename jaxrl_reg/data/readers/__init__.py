"""One module per file format; each has ``read(path, *, name, action_low, action_high, ...) -> Dataset``.

:func:`jaxrl_reg.data.load` picks the module. ``d4rl`` and ``minari`` also have ``write``.
"""
