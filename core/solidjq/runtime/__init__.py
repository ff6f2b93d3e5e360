"""The Python runtime: a supervisor that keeps workers and a dispatcher running on Solid Queue's tables."""
