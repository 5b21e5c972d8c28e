-- A body of 1 KB.
wrk.method = "POST"
wrk.body = string.rep("x", 1024)
