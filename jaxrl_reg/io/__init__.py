"""What touches disk and services: checkpoints, log sinks, environment information."""
