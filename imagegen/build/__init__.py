"""Image -> Built: bases, the bake definition, and the run of BuildKit."""
