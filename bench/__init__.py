"""How fast it is, beside what the machine could do: `python -m bench.NAME`."""
