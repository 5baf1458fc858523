"""Pushes that meet a fault, and a look by other means at what they left in the registry."""
