// Node's http as an origin: node origin.mjs PORT FILE
import { createHash } from 'node:crypto'
import { createReadStream, readFileSync, statSync } from 'node:fs'
import http from 'node:http'
import { gzipSync } from 'node:zlib'

const [port, file] = process.argv.slice(2)
const acknowledged = new Map()

async function echo (request, response) {
  const sha = createHash('sha256')
  let bytes = 0
  for await (const piece of request) {
    sha.update(piece)
    bytes += piece.length
  }
  response.setHeader('Content-Type', 'application/json')
  response.end(JSON.stringify({
    method: request.method,
    bytes,
    sha256: sha.digest('hex'),
    coding: request.headers['transfer-encoding'] ?? null,
    length: request.headers['content-length'] ?? null,
  }))
}

async function sendEvents (response) {
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' })
  for (let number = 0; number < 3; number++) {
    const seen = new Promise(resolve => acknowledged.set(number, resolve))
    response.write(`data: ${number}\n\n`)
    await seen // the next event waits until the client has seen this one
  }
  response.end()
}

function sendFile (request, response) {
  response.writeHead(200, { 'Content-Length': statSync(file).size, 'Content-Type': 'application/octet-stream' })
  if (request.method === 'HEAD') response.end()
  else createReadStream(file).pipe(response)
}

const routes = {
  '/health': (_, response) => response.end('well'),
  '/file': sendFile,
  '/echo': echo,
  '/redirect': (_, response) => response.writeHead(302, { Location: '/file' }).end(),
  '/gzip': (_, response) => response.writeHead(200, { 'Content-Encoding': 'gzip' }).end(gzipSync(readFileSync(file))),
  '/events': (_, response) => sendEvents(response),
  '/hints': (_, response) => {
    response.writeEarlyHints({ link: '</style.css>; rel=preload' })
    response.end('hinted')
  },
  '/trailers': (_, response) => {
    response.writeHead(200, { Trailer: 'X-Sum' })
    response.write('body')
    response.addTrailers({ 'X-Sum': '42' })
    response.end()
  },
}

http.createServer((request, response) => {
  const path = request.url.split('?')[0]
  if (path.startsWith('/seen/')) {
    acknowledged.get(Number(path.slice(6)))?.()
    response.end('ok')
  } else if (path in routes) {
    routes[path](request, response)
  } else {
    response.writeHead(404).end()
  }
}).listen(Number(port), '127.0.0.1')
