"""The producer's wing: finds scans, submits jobs, tells their status. Never imports torch."""
