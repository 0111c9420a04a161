// `fetch` over HTTP/2, by prior knowledge: as much of it as the suite uses. Its requests and answers are
// those of node-fetch, so that the suite sees no other difference.

import { once } from 'node:events'
import http2 from 'node:http2'

import { Headers, Request, Response } from 'node-fetch'

const sessions = new Map()

// Fields of a connection have no meaning in HTTP/2, and node refuses them.
const OF_CONNECTION = ['connection', 'keep-alive', 'proxy-connection', 'te', 'transfer-encoding', 'upgrade']

export async function fetch (url, init) {
  const request = new Request(url, init)
  const { origin, pathname, search } = new URL(request.url)
  const fields = { ':method': request.method, ':path': pathname + search }
  for (const [name, value] of request.headers) {
    // Over HTTP/1 a receiver removes the white space around a value; here it is an error.
    if (!OF_CONNECTION.includes(name)) fields[name] = value.trim()
  }
  // node-fetch adds this.
  fields.accept ??= '*/*'
  const body = await request.buffer()
  const stream = session(origin).request(fields, { endStream: body.length === 0 })
  if (body.length > 0) stream.end(body)
  const [answer] = await once(stream, 'response')
  const parts = []
  for await (const part of stream) parts.push(part)
  const headers = new Headers()
  for (const [name, values] of Object.entries(answer)) {
    if (name.startsWith(':')) continue
    for (const value of [values].flat()) headers.append(name, value)
  }
  const status = answer[':status']
  const hasBody = ![204, 304].includes(status) && request.method !== 'HEAD'
  return new Response(hasBody ? Buffer.concat(parts) : null, { url: request.url, status, headers })
}

export function close () {
  for (const session of sessions.values()) session.close()
}

function session (origin) {
  const known = sessions.get(origin)
  if (known !== undefined && !known.closed && !known.destroyed) return known
  const opened = http2.connect(origin)
  // An error shows in the requests.
  opened.on('error', () => {})
  sessions.set(origin, opened)
  return opened
}
