import jax
import pytest


@pytest.fixture
def x64():
    """Double precision: identities are then tested as identities."""
    with jax.enable_x64(True):
        yield
