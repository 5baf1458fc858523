"""RunPod: its contract, its templates, its API."""
