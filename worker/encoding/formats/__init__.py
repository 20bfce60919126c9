"""What files of scans hold: one picture, or many."""
