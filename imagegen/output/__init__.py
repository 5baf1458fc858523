"""The only printer: tables, JSON, JUnit, GitHub summaries."""
