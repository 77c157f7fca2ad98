/** Whether a request's client is still there. A client may close its sending side when it has sent its request, and
 * read on; one that leaves closes both, which looks the same until something is written: a reset comes back. */
import type { ServerResponse } from "node:http"

/** After the end of what the client sends, its being there is asked for once the answer takes this long: most answers
 * are there before. */
const ASK_AFTER_MS = 1000
/** It may leave later. */
const ASK_EVERY_MS = 10_000
/** A reset that came back shows at the next write only, be it of nothing: nothing is read any more. */
const HEAR_EVERY_MS = 200
/** A reason of one's own: the default one is an exception with a stack trace, made for every response. */
const GONE = "gone"

/** Aborts `abort` when the client has gone, or has gone already. `ask` writes something that a client overlooks. */
export function watchClient(raw: ServerResponse, abort: AbortController, ask: () => void): void {
  const { socket } = raw
  const timers: NodeJS.Timeout[] = []
  const ended = () => {
    timers.push(setTimeout(ask, ASK_AFTER_MS), setInterval(ask, ASK_EVERY_MS))
    timers.push(setInterval(() => socket?.write(""), HEAR_EVERY_MS))
  }
  const closed = () => {
    for (const timer of timers) clearInterval(timer)
    socket?.off("end", ended)
    // "close" also comes after a complete response: what has ended need not be cancelled.
    if (!raw.writableFinished) abort.abort(GONE)
  }
  raw.once("close", closed)
  // While the request was read and checked, its client may have gone: nothing would tell of it any more.
  if (raw.destroyed || socket?.destroyed) closed()
  else if (socket?.readableEnded) ended()
  else socket?.once("end", ended)
}

/** Asks without a trace in the answer: a client takes any number of these before its response (RFC 9110, 15.2). */
export function askBefore(raw: ServerResponse): void {
  // HTTP/1.0 does not know them; TCP's own keep-alive finds out.
  const modern = raw.req.httpVersionMajor === 1 && raw.req.httpVersionMinor > 0
  if (modern && !raw.headersSent && !raw.destroyed) raw.writeContinue()
}
