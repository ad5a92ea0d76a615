"""``python -m jaxrl_reg.cli``: the same as ``jaxrl-reg``."""

from jaxrl_reg.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
