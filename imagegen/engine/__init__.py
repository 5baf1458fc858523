"""Docker: the only package that builds, runs and pushes."""
