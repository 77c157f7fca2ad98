/** A thread that polls /health and reads running streams, and tells the worst pause of each since it was asked last. */
import { Agent, get, request } from "node:http"
import { parentPort, workerData } from "node:worker_threads"

export interface ProbeOptions {
  url: string
  streams: number
  /** Every so often, ms. */
  healthEveryMs: number
}

export interface Stalls {
  /** Longest time of an answer of /health, ms. */
  healthMs: number
  /** Longest time between two chunks of a stream, ms. */
  streamMs: number
  /** Longest time of the whole answer to a short chat of one token, ms. */
  shortMs: number
  /** Streams and chats that broke, or answered with an error. */
  broken: number
  polls: number
}

const SHORT_EVERY_MS = 20
const { url, streams, healthEveryMs } = workerData as ProbeOptions
const agent = new Agent({ keepAlive: true, maxSockets: streams + 2 })
const NONE: Stalls = { healthMs: 0, streamMs: 0, shortMs: 0, broken: 0, polls: 0 }
let stalls = { ...NONE }
const health = { beganMs: 0 }
const short = { beganMs: 0 }
const last = new Float64Array(streams)

parentPort!.on("message", () => {
  const nowMs = performance.now()
  // What has not come yet has been waited for all the same.
  if (health.beganMs > 0) stalls.healthMs = Math.max(stalls.healthMs, nowMs - health.beganMs)
  if (short.beganMs > 0) stalls.shortMs = Math.max(stalls.shortMs, nowMs - short.beganMs)
  for (const [i, seen] of last.entries()) if (seen > 0) gap(i, nowMs)
  parentPort!.postMessage(stalls)
  stalls = { ...NONE }
})

function gap(stream: number, nowMs: number): void {
  stalls.streamMs = Math.max(stalls.streamMs, nowMs - last[stream]!)
  last[stream] = nowMs
}

function poll(): void {
  health.beganMs = performance.now()
  const done = () => {
    stalls.healthMs = Math.max(stalls.healthMs, performance.now() - health.beganMs)
    stalls.polls++
    health.beganMs = 0
    setTimeout(poll, healthEveryMs)
  }
  get(`${url}/health`, { agent }, (response) => response.resume().on("end", done)).on("error", done)
}

/** One short chat after the other. */
function chat(): void {
  short.beganMs = performance.now()
  const done = (broken: boolean) => {
    stalls.shortMs = Math.max(stalls.shortMs, performance.now() - short.beganMs)
    short.beganMs = 0
    if (broken) stalls.broken++
    setTimeout(chat, SHORT_EVERY_MS)
  }
  const headers = { "content-type": "application/json" }
  const sent = request(`${url}/v1/chat/completions`, { agent, method: "POST", headers }, (response) => {
    response.resume().on("end", () => done(response.statusCode !== 200))
    response.on("error", () => done(true))
  })
  sent.on("error", () => done(true))
  sent.end(JSON.stringify({ messages: [{ role: "user", content: "hi" }], max_tokens: 1 }))
}

/** One stream after the other, for ever. The time to the first chunk is not one between two. */
function stream(index: number): void {
  const body = JSON.stringify({
    prompt: `stream ${index}`,
    max_tokens: 400,
    ignore_eos: true,
    stream: true,
    slo: { ttft_ms: 5000, tpot_ms: 200 },
  })
  const again = (broken: boolean) => {
    if (broken) stalls.broken++
    last[index] = 0
    setTimeout(() => stream(index), broken ? 100 : 0)
  }
  const headers = { "content-type": "application/json" }
  const sent = request(`${url}/v1/completions`, { agent, method: "POST", headers }, (response) => {
    const wrong = response.statusCode !== 200
    response.on("data", () => {
      if (last[index]! > 0) gap(index, performance.now())
      else last[index] = performance.now()
    })
    response.on("end", () => again(wrong))
    response.on("error", () => again(true))
  })
  sent.on("error", () => again(true))
  sent.end(body)
}

poll()
chat()
for (let i = 0; i < streams; i++) stream(i)
