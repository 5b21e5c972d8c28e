// Go's net/http as an origin and as a client.
//
//	peer serve PORT FILE
//	peer send METHOD URL BYTES CODING    prints one line of JSON; CODING is none, length or chunked
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
)

type told map[string]interface{}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func digest(from io.Reader) (int64, string) {
	sha := sha256.New()
	size, err := io.Copy(sha, from)
	check(err)
	return size, fmt.Sprintf("%x", sha.Sum(nil))
}

func serve(port, file string) {
	http.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })
	http.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/file", 302) })
	http.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile(file)
		check(err)
		for len(data) > 0 {
			size := 50000
			if size > len(data) {
				size = len(data)
			}
			w.Write(data[:size])
			w.(http.Flusher).Flush()
			data = data[size:]
		}
	})
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		size, sum := digest(r.Body)
		json.NewEncoder(w).Encode(told{"bytes": size, "sha256": sum, "length": r.ContentLength, "coding": r.TransferEncoding})
	})
	http.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "well") })
	check(http.ListenAndServe("127.0.0.1:"+port, nil))
}

func send(method, url, size, coding string) {
	count, err := strconv.Atoi(size)
	check(err)
	var body io.Reader
	if coding != "none" {
		body = bytes.NewReader(bytes.Repeat([]byte("x"), count))
	}
	if coding == "chunked" {
		body = io.MultiReader(body) // of a length that net/http cannot know
	}
	request, err := http.NewRequest(method, url, body)
	check(err)
	response, err := http.DefaultClient.Do(request)
	check(err)
	data, err := io.ReadAll(response.Body)
	check(err)
	got, sum := digest(bytes.NewReader(data))
	text := ""
	if got < 2000 {
		text = string(data)
	}
	length := response.Header.Get("Content-Length")
	json.NewEncoder(os.Stdout).Encode(told{"status": response.StatusCode, "bytes": got, "sha256": sum, "text": text, "length": length})
}

func main() {
	if os.Args[1] == "serve" {
		serve(os.Args[2], os.Args[3])
	} else {
		send(os.Args[2], os.Args[3], os.Args[4], os.Args[5])
	}
}
