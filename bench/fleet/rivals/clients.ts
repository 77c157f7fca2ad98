/** Clients of the overhead bench: streams that are read as they come, in this process. */
import { Agent, request } from "node:http"

export interface Load {
  /** Base URLs, in turn. */
  urls: readonly string[]
  model: string
  streams: number
  /** Of each answer, and the time between two of them. */
  tokens: number
  gapMs: number
  /** No request is begun after this. */
  seconds: number
}

export interface Seen {
  requests: number
  tokens: number
  /** From the sending of each request to its first token. */
  firstUs: number[]
  /** From the writing of each token by the engine to its reading here; empty where the engine writes no times. */
  delayUs: number[]
  /** Between two tokens of a stream. */
  gapUs: number[]
  elapsedUs: number
  /** What went wrong, each kind with its number. */
  failures: Record<string, number>
}

const CONTENT = /"content":"([^"]*)"/
/** Times of the engine; text of another engine holds no such numbers. */
const TIME = /\d{9,}/g

/** Each stream sends its next request when the one before has ended. */
export async function run(load: Load): Promise<Seen> {
  const seen: Seen = {
    ...{ requests: 0, tokens: 0, firstUs: [], delayUs: [], gapUs: [], elapsedUs: 0, failures: {} },
  }
  const agent = new Agent({ keepAlive: true })
  const startUs = nowUs()
  const endUs = startUs + load.seconds * 1e6
  const stream = async (index: number) => {
    // Spread over one gap: engines of many clients do not step together.
    await new Promise((resolve) => setTimeout(resolve, (load.gapMs * index) / load.streams))
    for (let n = index; nowUs() < endUs; n++) await one(load, load.urls[n % load.urls.length]!, agent, seen)
  }
  await Promise.all(Array.from({ length: load.streams }, (_, i) => stream(i)))
  seen.elapsedUs = nowUs() - startUs
  agent.destroy()
  return seen
}

function one(load: Load, url: string, agent: Agent, seen: Seen): Promise<void> {
  const body = JSON.stringify({
    ...{ model: load.model, stream: true, max_tokens: load.tokens, temperature: 0, ignore_eos: true },
    messages: [{ role: "user", content: `gap=${load.gapMs} Say when each of these words was written.` }],
    // Nothing waits for a promise: how the bytes pass is measured, not what is decided.
    slo: { ttft_ms: 60_000, tpot_ms: 2_000 },
  })
  const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) }
  return new Promise((resolve) => {
    const failed = (why: string) => {
      seen.failures[why] = (seen.failures[why] ?? 0) + 1
      // A server that refuses at once must not be asked without pause.
      setTimeout(resolve, 20)
    }
    const sentUs = nowUs()
    const outgoing = request(`${url}/v1/chat/completions`, { method: "POST", agent, headers }, (response) => {
      let rest = ""
      let lastUs = 0
      let done = false
      response.setEncoding("utf8")
      const read = (line: string, atUs: number) => {
        if (line === "data: [DONE]") done = true
        const text = CONTENT.exec(line)?.[1]
        if (text === undefined || text === "") return
        if (lastUs === 0) seen.firstUs.push(atUs - sentUs)
        else seen.gapUs.push(atUs - lastUs)
        lastUs = atUs
        const times = text.match(TIME) ?? []
        seen.tokens += Math.max(1, times.length)
        for (const time of times) seen.delayUs.push(atUs - Number(time))
      }
      response.on("data", (part: string) => {
        const atUs = nowUs()
        const lines = (rest + part).split("\n")
        rest = lines.pop()!
        for (const line of lines) if (line.startsWith("data:")) read(line, atUs)
      })
      response.on("end", () => {
        if (!done) return failed(`HTTP ${response.statusCode}: the stream did not end properly`)
        seen.requests++
        resolve()
      })
      response.on("error", (error) => failed(error.message))
    })
    outgoing.on("error", (error) => failed(error.message))
    outgoing.end(body)
  })
}

function nowUs(): number {
  return Number(process.hrtime.bigint()) / 1000
}
