"""Third room: scores to a report."""
