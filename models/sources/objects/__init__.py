"""Objects in an object store or on a web server, by the drivers of fsspec: `s3://`, `gs://`, `http://`, `https://`."""
