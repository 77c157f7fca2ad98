/** One streamed completion as its client sees it: the text, when each token came, and how it ended. */
import { Agent, request } from "node:http"
import { SseParser } from "../../../src/load/sse.ts"
import type { Asked } from "./transcripts.ts"

/** Objectives of all streams, and what is judged here by the client's own clock. */
export const SLO = { ttft_ms: 2000, tpot_ms: 100 }
/** A stream that brings nothing for so long hangs. Longer than any request may wait for a replica. */
export const HUNG_MS = 75_000

export interface Followed {
  startMs: number
  endMs: number
  /** "ok", "hung", "cut" (the connection broke off), or the error's code. */
  end: string
  message: string
  text: string
  tokens: number
  /** When each token came, performance.now(). */
  tokenMs: number[]
  /** 429 and 503: when to come back, by the server's word. */
  retryMs: number | null
  /** What the server says of its objectives; null: nothing. */
  kept: boolean | null
  /** As what it was served in the end: "slo" or "best_effort", by the server's word. */
  tier: string | null
}

interface Chunk {
  choices?: { text?: string; finish_reason?: string | null }[]
  usage?: { completion_tokens: number } | null
  metrics?: { slo?: { attained?: boolean; served_tier?: string } | null }
  error?: { message: string; code: string | null }
}

const agent = new Agent({ keepAlive: false })

export interface FollowOptions {
  slo?: object
  hungMs?: number
}

/** Never rejects. */
export function follow(url: string, asked: Asked, options: FollowOptions = {}): Promise<Followed> {
  const { slo = SLO, hungMs = HUNG_MS } = options
  return new Promise((resolve) => {
    const seen: Followed = {
      ...{ startMs: performance.now(), endMs: 0, end: "", message: "", text: "", tokens: 0, tokenMs: [] },
      ...{ retryMs: null, kept: null, tier: null },
    }
    const over = (end: string, message = "") => {
      if (seen.end !== "") return
      clearTimeout(silence)
      resolve(Object.assign(seen, { end, message, endMs: performance.now() }))
      sending.destroy()
    }
    const silence = setTimeout(() => over("hung", `nothing for ${hungMs} ms`), hungMs)
    const sending = request(
      `${url}/v1/completions`,
      { method: "POST", agent, headers: HEADERS },
      (response) => {
        response.on("error", (error) => over("cut", error.message))
        const read = response.statusCode === 200 ? readChunks(seen, silence, over) : readRefusal(seen, over)
        if (response.statusCode !== 200) seen.retryMs = retryOf(response.headers["retry-after-ms"])
        response.on("data", read.data)
        response.on("end", read.end)
      },
    )
    sending.on("error", (error) => over("cut", error.message))
    sending.end(JSON.stringify(bodyOf(asked, slo)))
  })
}

const HEADERS = { "content-type": "application/json" }

function bodyOf({ prompt, tokens }: Asked, slo: object): object {
  return {
    ...{ prompt, max_tokens: tokens, temperature: 0, ignore_eos: true, stream: true, slo },
    stream_options: { include_usage: true, continuous_usage_stats: true },
  }
}

function retryOf(header: string | string[] | undefined): number | null {
  return header === undefined ? null : Number(header)
}

interface Reader {
  data: (bytes: Buffer) => void
  end: () => void
}
type Over = (end: string, message?: string) => void

function readChunks(seen: Followed, silence: NodeJS.Timeout, over: Over): Reader {
  const parser = new SseParser()
  let done = false
  const take = (data: string) => {
    if (data === "[DONE]") {
      done = true
      return
    }
    const { choices, usage, metrics, error } = JSON.parse(data) as Chunk
    if (error !== undefined) return over(error.code ?? "error", error.message)
    const nowMs = performance.now()
    seen.text += choices?.[0]?.text ?? ""
    seen.kept = metrics?.slo?.attained ?? seen.kept
    seen.tier = metrics?.slo?.served_tier ?? seen.tier
    while (seen.tokens < (usage?.completion_tokens ?? 0)) {
      seen.tokens++
      seen.tokenMs.push(nowMs)
    }
  }
  return {
    data: (bytes) => {
      silence.refresh()
      try {
        for (const data of parser.push(bytes)) take(data)
      } catch (cause) {
        over("nonsense", (cause as Error).message)
      }
    },
    end: () => (done ? over("ok") : over("cut", "the stream broke off")),
  }
}

function readRefusal(_seen: Followed, over: Over): Reader {
  let text = ""
  return {
    data: (bytes) => {
      text += bytes.toString()
    },
    end: () => {
      try {
        const { error } = JSON.parse(text) as Chunk
        over(error?.code ?? "refused", error?.message ?? text)
      } catch {
        over("refused", text.slice(0, 200))
      }
    },
  }
}

/** Whether every token came when it was due, by this clock. */
export function inTime({ startMs, tokenMs }: Followed, slo = SLO): boolean {
  const [firstMs] = tokenMs
  if (firstMs === undefined || firstMs > startMs + slo.ttft_ms) return false
  const fromMs = startMs + slo.ttft_ms
  return tokenMs.every((atMs, i) => atMs <= fromMs + i * slo.tpot_ms)
}
