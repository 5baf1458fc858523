"""vast.ai: its contract, its templates, its API."""
