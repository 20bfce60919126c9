"""Every format and mode that is read, against independent readers: a generated grid."""
