/** An engine of the picker's bench: streams events over HTTP. `engine.ts <events> <gap ms>` prints its port. */
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

const [events, gapMs] = process.argv.slice(2).map(Number) as [number, number]
const EVENT = `data: ${JSON.stringify({ id: "cmpl-1", object: "text_completion", choices: [{ index: 0, text: " token" }] })}\n\n`

const server = createServer((request, response) => {
  request.resume()
  request.on("end", () => {
    response.writeHead(200, { "content-type": "text/event-stream" })
    let left = events
    const next = () => {
      if (response.destroyed) return
      left--
      if (left > 0) {
        response.write(EVENT)
        setTimeout(next, gapMs)
      } else response.end(`${EVENT}data: [DONE]\n\n`)
    }
    next()
  })
})
server.keepAliveTimeout = 600_000
server.listen(0, "127.0.0.1", () => console.log((server.address() as AddressInfo).port))
