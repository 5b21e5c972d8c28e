// Node as a client: node client.mjs TASK URL ...; prints one line of JSON.
import { createHash } from 'node:crypto'
import http from 'node:http'

const [task, url, ...rest] = process.argv.slice(2)
const sha256 = data => createHash('sha256').update(data).digest('hex')

async function summary (response) {
  const body = Buffer.from(await response.arrayBuffer())
  return {
    status: response.status,
    bytes: body.length,
    sha256: sha256(body),
    text: body.length < 2000 ? body.toString() : '',
    headers: Object.fromEntries(response.headers),
  }
}

async function send () {
  const [method, kind, size, headers] = rest
  const init = { method, headers: JSON.parse(headers ?? '{}') }
  if (kind === 'length') init.body = Buffer.alloc(Number(size), 'x')
  if (kind === 'chunked') {
    init.duplex = 'half'
    init.body = new ReadableStream({
      start (controller) {
        for (let left = Number(size); left > 0; left -= 10000) {
          controller.enqueue(new Uint8Array(Math.min(left, 10000)).fill(120))
        }
        controller.close()
      },
    })
  }
  return summary(await fetch(url, init))
}

async function events () {
  const reader = (await fetch(`${url}/events`)).body.getReader()
  const seen = []
  for (let number = 0; number < 3; number++) {
    seen.push(Buffer.from((await reader.read()).value).toString())
    await fetch(`${url}/seen/${number}`)
  }
  return { seen, done: (await reader.read()).done }
}

function raw () {
  return new Promise((resolve, reject) => {
    const informed = []
    const request = http.get(url, { headers: { TE: 'trailers', Connection: 'TE' } }, response => {
      response.resume()
      response.on('end', () => resolve({ status: response.statusCode, informed, trailers: response.trailers }))
    })
    request.on('information', info => informed.push({ status: info.statusCode, headers: info.headers }))
    request.on('error', reject)
  })
}

console.log(JSON.stringify(await { send, events, raw }[task]()))
