"""Tested -> Pushed: an image, its report and its tags on their way into registries."""
