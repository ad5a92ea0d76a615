"""Evidence on learning one task after another, and on staying close in parameters while doing so."""
