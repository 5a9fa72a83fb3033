"""What an operator sees: logs, metrics, traces. Stands below everything that tells of itself."""
