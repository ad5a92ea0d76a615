"""Other people's environments behind our contract; each module imports its package when used."""
