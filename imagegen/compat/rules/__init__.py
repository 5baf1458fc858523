"""The knowledge: one small function for each fact, whose parameters name its axes."""
