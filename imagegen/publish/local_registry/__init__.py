"""A registry on this machine, from the distribution's own package."""
