-- A body of 1 MB, read to its end by the origin before it answers.
wrk.method = "POST"
wrk.body = string.rep("x", 1048576)
