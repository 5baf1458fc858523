"""Registries, spoken to as the OCI distribution specification 1.1 has it, without an engine."""
