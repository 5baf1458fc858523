"""Wheels of flash-attn: where they are kept and how they come from there."""
