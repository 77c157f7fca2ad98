/** Prompts of a vLLM that others compute for it (--kv-transfer-config: they are producers of KV, it is the consumer). Each in
 * turn is asked for one token and says where the prompt's KV lies; with that word the decoding engine fetches it. Where none
 * of them does, the decoding engine computes the prompt by itself: late, but nothing is lost. */
import { randomUUID } from "node:crypto"
import { Agent } from "undici"
import type { Ask } from "./ask.ts"
import type { Timeouts } from "./exchange.ts"

export interface PrefillServersOptions {
  /** Scheme, host and port of each; no slash at its end. */
  prefill?: readonly string[]
  headers: Readonly<Record<string, string>>
  timeouts: Timeouts
}

type Named = Readonly<Record<string, string>>

/** One that failed is passed over for so long. */
const PAUSE_MS = 5000

/** As vLLM's connectors take it: the KV is to be kept for another, of which nothing is known yet. */
const FOR_ANOTHER = {
  ...{ do_remote_decode: true, do_remote_prefill: false },
  ...{ remote_engine_id: null, remote_block_ids: null, remote_host: null, remote_port: null },
}

/** Null where none are named. */
export function prefillServers(options: PrefillServersOptions): PrefillServers | null {
  const { prefill: urls = [] } = options
  return urls.length > 0 ? new PrefillServers(options, urls) : null
}

export class PrefillServers {
  readonly #options: PrefillServersOptions
  readonly #urls: readonly string[]
  readonly #agent: Agent
  #turn = 0
  /** When those that failed may be asked again, ms. */
  #pausedUntilMs = new Map<string, number>()

  constructor(options: PrefillServersOptions, urls: readonly string[]) {
    this.#options = options
    this.#urls = urls
    this.#agent = new Agent({ connect: { timeout: options.timeouts.connectMs } })
  }

  /** Has the prompt computed, then says `done` with the request that is to be decoded, and the name that both halves are
   * known by. The answer gives it up without another word. Not for a stream that goes on elsewhere: its answer so far, which is
   * part of its prompt, is computed where it is decoded. */
  compute(ask: Ask, done: (ask: Ask, named: Named) => void): () => void {
    const given = new AbortController()
    const named = { "x-request-id": `slos-serve-${randomUUID()}` }
    void this.#ask(ask, named, given.signal).then((params) => {
      if (given.signal.aborted) return
      done(params === null ? ask : { ...ask, body: { ...ask.body, kv_transfer_params: params } }, named)
    })
    return () => given.abort()
  }

  close(): Promise<void> {
    return this.#agent.destroy()
  }

  /** What the decoding engine is to be told; null: no KV is kept anywhere. */
  async #ask(ask: Ask, named: Named, signal: AbortSignal): Promise<object | null> {
    for (const url of this.#inTurn()) {
      try {
        return await this.#askOne(url, ask, named, signal)
      } catch {
        if (signal.aborted) return null
        this.#pausedUntilMs.set(url, performance.now() + PAUSE_MS)
      }
    }
    return null
  }

  #inTurn(): string[] {
    const urls = this.#urls
    const start = this.#turn++ % urls.length
    const now = performance.now()
    const all = [...urls.slice(start), ...urls.slice(0, start)]
    return all.filter((url) => (this.#pausedUntilMs.get(url) ?? 0) <= now)
  }

  async #askOne(url: string, ask: Ask, named: Named, signal: AbortSignal): Promise<object | null> {
    const { headers, timeouts } = this.#options
    const { origin, pathname } = new URL(url)
    const { statusCode, body } = await this.#agent.request({
      ...{ origin, path: pathname.replace(/\/$/, "") + ask.path, method: "POST", signal },
      headers: { "content-type": "application/json", ...headers, ...named },
      body: JSON.stringify(bodyOf(ask)),
      ...{ headersTimeout: timeouts.firstByteMs, bodyTimeout: timeouts.silenceMs },
    })
    const answer = (await body.json()) as { kv_transfer_params?: object | null }
    // What is wrong with the request its client is told by the engine that decodes.
    if (statusCode >= 400 && statusCode < 500 && statusCode !== 429) return null
    if (statusCode !== 200) throw new Error(`it answered ${statusCode}`)
    return answer.kv_transfer_params ?? null
  }
}

/** The same prompt, for one token that is thrown away. */
function bodyOf({
  body: { stream_options: _, min_tokens: __, max_completion_tokens, ...body },
}: Ask): object {
  const chat = max_completion_tokens !== undefined
  return {
    ...body,
    ...(chat ? { max_completion_tokens: 1 } : { max_tokens: 1 }),
    ...{ stream: false, kv_transfer_params: FOR_ANOTHER },
  }
}
