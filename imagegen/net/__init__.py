"""HTTP and registries: patience with what passes, an end to what does not, no word of a login."""
