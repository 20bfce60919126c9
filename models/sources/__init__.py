"""Where the files of scans are: on a disk, in an archive, in an object store."""
