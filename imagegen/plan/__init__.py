"""Target -> Recipe -> Dockerfile -> Image: where each piece comes from, and the key of it all."""
