"""What Scanomaly costs beside what it has to cost. `python -m bench` prints a table; see docs/performance.md."""
