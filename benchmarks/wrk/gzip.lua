-- What the origin compresses on its way out has no length: it comes in chunks.
wrk.headers["Accept-Encoding"] = "gzip"
