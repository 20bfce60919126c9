"""`python -m scanomaly.producer.cli`."""

from . import main

main()
