/** Whether an engine is there: asked again and again, with a pause that grows while it is not. What it serves, and how
 * busy it says it is, are asked along the way. */
import { type Dispatcher, request } from "undici"
import { otherModel, type Serving } from "../one-model.ts"
import { networkText } from "./exchange.ts"
import { Gauges } from "./gauges.ts"
import type { BackendKind, Learnt } from "./kind.ts"
import { BACKEND_KINDS, kindOfOwner } from "./kinds.ts"

export interface ProberOptions {
  url: string
  /** null: what it says that it is. */
  kind: BackendKind | null
  apiKey?: string | null
  hostHeader?: string | null
  models?: ReadonlyMap<string, string>
  dispatcher: Dispatcher
  probeMs: number
  /** Another one that is ready. */
  beside?: () => Serving | null
}

/** What it serves. */
export interface Served {
  kind: BackendKind
  /** What the engine calls it: the one asked for, or its first. */
  model: string
  /** Longest prompt and output together, tokens; null: it does not say. */
  contextTokens: number | null
}

export interface ProberSink {
  up(served: Served): void
  /** Each time it is found down, with the reason. */
  down(detail: string): void
  learnt(learnt: Learnt): void
}

/** So many failures in a row, and it is down. */
const MOST_FAILURES = 3
const TIMEOUT_MS = 2000
const MOST_PAUSE_MS = 10_000
const MOST_BYTES = 8_000_000
/** Answers that mean: there is no such page, and there will be none. */
const NEVER_THERE = new Set([404, 405, 501])

export class Prober {
  served: Served | null = null
  readonly #options: ProberOptions
  readonly #sink: ProberSink
  readonly #headers: Record<string, string>
  #timer: NodeJS.Timeout | null = null
  #failures = 0
  #isUp = false
  #heardMs = -Infinity
  #closed = false
  #hasMetrics = true
  #silentMetrics = 0
  #kind: BackendKind

  constructor(options: ProberOptions, sink: ProberSink) {
    this.#options = options
    this.#sink = sink
    this.#kind = options.kind ?? BACKEND_KINDS.openai
    this.#headers = headersOf(options)
    // Listeners first.
    queueMicrotask(() => void this.#look())
  }

  /** Something came from it: it is there, whatever its health page says. */
  heard(): void {
    this.#heardMs = performance.now()
    this.#failures = 0
  }

  /** A request to it went wrong: it is looked at before its time. */
  failed(detail: string): void {
    this.#failure(detail)
    if (this.#timer === null || !this.#isUp) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#look(), 0)
  }

  /** It is down, whatever it says; it may come back when it is looked at next. */
  giveUp(detail: string): void {
    this.#heardMs = -Infinity
    this.#failures = MOST_FAILURES
    this.#failure(detail)
  }

  close(): void {
    this.#closed = true
    if (this.#timer !== null) clearTimeout(this.#timer)
  }

  async #look(): Promise<void> {
    this.#timer = null
    if (this.#closed) return
    try {
      await this.#get(this.#kind.healthPath)
      const learnt = this.#isUp ? null : await this.#findServed()
      if (!this.#isUp) this.#mayServe(this.served!.model)
      this.#success()
      if (learnt !== null && !this.#closed) this.#sink.learnt(learnt)
      await this.#readMetrics()
    } catch (error) {
      this.#failure(this.#closed ? "" : networkText(error))
    }
    if (this.#closed) return
    const { probeMs } = this.#options
    const pauseMs = this.#isUp ? probeMs : Math.min(MOST_PAUSE_MS, probeMs * 2 ** Math.min(8, this.#failures))
    this.#timer = setTimeout(() => void this.#look(), pauseMs)
    this.#timer.unref()
  }

  #success(): void {
    this.#failures = 0
    if (this.#closed || this.#isUp) return
    this.#isUp = true
    // It may be another one, started otherwise.
    this.#hasMetrics = true
    this.#sink.up(this.served!)
  }

  #failure(detail: string): void {
    if (this.#closed) return
    this.#failures++
    // A busy engine may be slow to say that it is well; its streams say it.
    const heard = performance.now() - this.#heardMs < MOST_FAILURES * this.#options.probeMs
    if (this.#isUp && (this.#failures < MOST_FAILURES || heard)) return
    this.#isUp = false
    this.#sink.down(detail)
  }

  async #findServed(): Promise<Learnt | null> {
    const { models } = this.#options
    const listed = modelsOf(JSON.parse(await this.#get("/v1/models")))
    if (listed.length === 0) throw new Error("it serves no model")
    const wanted = [...(models?.values() ?? [])]
    const names = listed.map(({ model }) => model)
    const missing = wanted.find((model) => !names.includes(model))
    if (missing !== undefined)
      throw new Error(`it does not serve the model ${missing}; it serves ${names.slice(0, 5).join(", ")}`)
    const usual = wanted[0] ?? this.#options.beside?.()?.model
    const found = listed.find(({ model }) => model === usual) ?? listed[0]!
    this.#kind = this.#options.kind ?? ownKind(found.owner)
    this.served = { kind: this.#kind, model: found.model, contextTokens: found.contextTokens }
    const { probe } = this.#kind
    const answer = probe === null ? null : await this.#get(probe.path).catch(() => null)
    return answer === null ? null : probe!.learn(JSON.parse(answer))
  }

  /** Asked once no other can become ready between the answer and its own turn. */
  #mayServe(model: string): void {
    const { models, beside } = this.#options
    const [name = model] = models?.keys() ?? []
    const wrong = otherModel(name, beside?.() ?? null)
    if (wrong !== null) throw new Error(wrong)
  }

  async #readMetrics(): Promise<void> {
    const { load } = this.#kind
    if (load === null || !this.#hasMetrics || this.#closed) return
    try {
      const learnt = load(new Gauges(await this.#get("/metrics")))
      this.#silentMetrics = 0
      if (learnt !== null && !this.#closed) this.#sink.learnt(learnt)
    } catch (error) {
      // It serves without them (llama-server: --metrics); others' load is then not seen.
      if (error instanceof Refused && NEVER_THERE.has(error.status)) this.#hasMetrics = false
      // What it said last would stand for ever, and what is held for others' load would wait for ever.
      const forgets = !this.#hasMetrics || ++this.#silentMetrics === MOST_FAILURES
      if (forgets && !this.#closed) this.#sink.learnt({ load: { running: 0, waiting: 0 } })
    }
  }

  async #get(path: string): Promise<string> {
    const { url, dispatcher } = this.#options
    const { statusCode, body } = await request(url + path, {
      ...{ dispatcher, headers: this.#headers },
      ...{ headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS, signal: AbortSignal.timeout(2 * TIMEOUT_MS) },
    })
    let text = ""
    for await (const part of body) {
      text += part
      if (text.length > MOST_BYTES) throw new Error(`${path} has no end`)
    }
    if (statusCode !== 200) throw new Refused(path, statusCode)
    return text
  }
}

class Refused extends Error {
  readonly status: number
  constructor(path: string, status: number) {
    super(`${path} answered ${status}`)
    this.status = status
  }
}

/** Of every request to it. */
export function headersOf({
  apiKey,
  hostHeader,
}: Pick<ProberOptions, "apiKey" | "hostHeader">): Record<string, string> {
  return {
    ...(apiKey && { authorization: `Bearer ${apiKey}` }),
    ...(hostHeader && { host: hostHeader }),
  }
}

function ownKind(owner: unknown): BackendKind {
  const name = kindOfOwner(owner)
  // Its OpenAI API is one, too; offers it answers where it is named as what it is.
  return BACKEND_KINDS[name === null || name === "slos-serve" ? "openai" : name]
}

/** vLLM and SGLang say the context as max_model_len, llama-server as meta.n_ctx. */
function modelsOf(answer: unknown): { model: string; contextTokens: number | null; owner: unknown }[] {
  const { data } = answer as { data?: Listed[] }
  if (!Array.isArray(data)) throw new Error("/v1/models is no list")
  return data.flatMap(({ id, max_model_len, meta, owned_by: owner }) => {
    if (typeof id !== "string") return []
    const said = [max_model_len, meta?.n_ctx].find((value) => typeof value === "number" && value > 0)
    return [{ model: id, contextTokens: (said as number | undefined) ?? null, owner }]
  })
}

interface Listed {
  id?: unknown
  max_model_len?: unknown
  owned_by?: unknown
  meta?: { n_ctx?: unknown } | null
}
