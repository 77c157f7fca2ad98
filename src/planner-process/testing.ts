/** An engine with the plug-in, played: says what vLLM's would say over a real socket, on a clock of its own, and obeys plans as
 * far as they can be obeyed. It keeps its own account of every request, and complains of plans that do not fit it. */
import { createConnection, type Socket } from "node:net"
import { encodeFrame, FrameReader } from "../wire/frames.ts"
import { columnOf } from "../wire/planner/columns.ts"
import {
  type Arrived,
  type EngineMessage,
  LANDED,
  type Landed,
  type PlanMessage,
  plannerHello,
  type Ran,
  readToPlugin,
  type StepMessage,
  type ToPlanner,
  type ToPlugin,
  toWire,
} from "../wire/planner/messages.ts"

export const ENGINE: EngineMessage = {
  ...{ type: "engine", name: "played", model: "tiny", device: "none", dtype: "float32" },
  limits: {
    ...{ kvTokens: 4096, blockTokens: 16, maxSequences: 16, maxBatchTokens: 256, contextTokens: 1024 },
    minChunkTokens: 16,
  },
  ...{ depth: 2, prefixCaching: false, maxDrafts: 0, tellsThinking: false },
  ...{
    tensorParallel: 1,
    pipelineParallel: 1,
    dataRank: 0,
    captureSizes: [],
    graphMode: "NONE",
    eager: true,
  },
  ...{ vllmVersion: "0.32.0", pluginVersion: "0.1.0" },
}

export interface PlayedRequest {
  id: number
  promptTokens: number
  maxOutputTokens: number
  slo: Record<string, unknown>
  /** When it came, on the engine's clock. */
  atUs: number
  /** Tokens after which it stops by itself. */
  stopsAfter: number
  /** KV in place, and tokens out: as scheduled, and as landed. */
  computed: number
  output: number
  /** Times of its tokens. */
  tokensUs: number[]
  scheduledOutput: number
}

interface Flying {
  seq: number
  atUs: number
  items: { request: PlayedRequest; position: number; tokens: number; sample: boolean; draft: number }[]
}

const STEP_US = 5_000
const TOKEN_US = 50

export class PlayedEngine {
  readonly engine: EngineMessage
  /** Live, in order of arrival. */
  readonly requests = new Map<number, PlayedRequest>()
  readonly ended: PlayedRequest[] = []
  /** What the planner has said, other than plans. */
  readonly said: Exclude<ToPlugin, PlanMessage>[] = []
  /** Steps by plan, and by the engine's own choice. */
  readonly steps = { plan: 0, changed: 0, engine: 0 }
  nowUs: number
  /** Plans that were not as the engine's own account has it. */
  readonly misfits: string[] = []
  #socket: Socket | null = null
  #plan: PlanMessage | null = null
  #waiting: (() => void) | null = null
  #flying: Flying[] = []
  #landed: Landed[] = []
  #arrived: PlayedRequest[] = []
  #cancelled: number[] = []
  #seq = 0
  #nextId = 1

  constructor(engine: Partial<EngineMessage> = {}, nowUs = 1_000_000) {
    this.engine = { ...ENGINE, ...engine }
    this.nowUs = nowUs
  }

  get connected(): boolean {
    return this.#socket !== null
  }

  /** Resolves when the planner has answered what this engine is, or has ended the connection. Live requests are told anew. */
  connect(path: string): Promise<void> {
    const socket = createConnection(path)
    const reader = new FrameReader()
    // What was in the air lands unheard.
    while (this.#flying.length > 0) this.#land()
    this.#seq = 0
    this.#plan = null
    this.#landed = []
    this.#cancelled = []
    this.#arrived = [...this.requests.values()]
    return new Promise((done) => {
      socket.on("connect", () => {
        this.#socket = socket
        this.#write(plannerHello())
        this.#write(this.engine)
      })
      socket.on("data", (piece: Buffer) => {
        for (const frame of reader.push(piece)) {
          const message = readToPlugin(frame)
          if (message.type === "plan") this.#plan = message
          else this.said.push(message)
          if (message.type === "ready" || message.type === "refused") done()
        }
        this.#wake()
      })
      socket.on("error", () => {})
      socket.on("close", () => {
        if (this.#socket === socket) this.#socket = null
        this.#wake()
        done()
      })
    })
  }

  disconnect(): void {
    this.#socket?.destroy()
    this.#socket = null
  }

  add(request: Partial<PlayedRequest> = {}): PlayedRequest {
    const added: PlayedRequest = {
      ...{ id: this.#nextId++, promptTokens: 40, maxOutputTokens: 10, slo: {}, atUs: this.nowUs },
      ...{ stopsAfter: Infinity, computed: 0, output: 0, scheduledOutput: 0, tokensUs: [] },
      ...request,
    }
    this.requests.set(added.id, added)
    this.#arrived.push(added)
    return added
  }

  abort(id: number): void {
    if (this.requests.delete(id)) this.#cancelled.push(id)
  }

  /** As `step`, until no request is live. */
  async run(mostSteps = 10_000): Promise<void> {
    for (let i = 0; i < mostSteps && this.requests.size > 0; i++) await this.step()
    while (this.#flying.length > 0) this.#land()
  }

  /** Schedules a step (by the plan, or by itself where there is none), tells it, and lets the oldest one land. */
  async step(): Promise<void> {
    if (this.connected && this.#needsPlan) await this.#tell(null)
    const { ran, flying } = this.#schedule()
    if (this.connected) await this.#tell(ran)
    if (flying.items.length > 0) this.#flying.push({ ...flying, seq: this.#seq })
    if (this.#flying.length >= this.engine.depth - 1 || flying.items.length === 0) this.#land()
    if (flying.items.length === 0 && this.#flying.length === 0) this.nowUs += STEP_US
  }

  /** The engine would have nothing to go by. */
  get #needsPlan(): boolean {
    return this.#plan === null || (this.#plan.batch === 0 && this.#flying.length === 0)
  }

  #schedule(): { ran: Ran | null; flying: Omit<Flying, "seq"> } {
    const plan = this.connected ? this.#plan : null
    this.#plan = null
    const planned = plan !== null && plan.batch !== 0
    const flying = {
      atUs: this.nowUs,
      items: planned ? this.#obey(plan) : plan === null ? this.#firstCome() : [],
    }
    for (const { request, position, tokens, sample, draft } of flying.items) {
      request.computed = position + tokens + draft
      if (sample) request.scheduledOutput += 1 + draft
    }
    if (!planned && flying.items.length === 0) return { ran: null, flying }
    const exact = planned && flying.items.length === plan.ids.length
    this.steps[planned ? (exact ? "plan" : "changed") : "engine"]++
    const head = { batch: planned ? plan.batch : 0, atUs: this.nowUs }
    return { ran: exact ? { ...head, exact } : { ...head, exact: false, ...columnsOf(flying.items) }, flying }
  }

  #obey({ ids, positions, tokens, drafts, evict = columnOf([]) }: PlanMessage): Flying["items"] {
    for (const id of evict) {
      const request = this.requests.get(id)
      if (request !== undefined) request.computed = 0
    }
    const items: Flying["items"] = []
    for (let i = 0; i < ids.length; i++) {
      const request = this.requests.get(ids[i]!)
      if (request === undefined) continue
      const [position, count, draft] = [positions[i]!, tokens[i]!, drafts?.[i] ?? 0]
      const known = request.promptTokens + request.scheduledOutput
      if (position === 0) request.computed = 0
      if (position !== request.computed || position + count > known)
        this.misfits.push(
          `request ${request.id}: position ${position} and ${count} tokens, where ${request.computed} of ${known} are computed`,
        )
      items.push({ request, position, tokens: count, sample: position + count === known, draft })
    }
    return items
  }

  /** vLLM's own order: those that run, then those that wait, as they came. */
  #firstCome(): Flying["items"] {
    const items: Flying["items"] = []
    let room = this.engine.limits.maxBatchTokens
    const all = [...this.requests.values()]
    for (const request of [
      ...all.filter(({ computed }) => computed > 0),
      ...all.filter(({ computed }) => computed === 0),
    ]) {
      const known = request.promptTokens + request.scheduledOutput
      const tokens = Math.min(room, known - request.computed)
      const full = request.scheduledOutput >= request.maxOutputTokens
      if (tokens < 1 || full || items.length >= this.engine.limits.maxSequences) continue
      const position = request.computed
      items.push({ request, position, tokens, sample: position + tokens === known, draft: 0 })
      room -= tokens
    }
    return items
  }

  #land(): void {
    const flown = this.#flying.shift()
    if (flown === undefined) return
    const tokens = flown.items.reduce((sum, item) => sum + item.tokens + item.draft, 0)
    const durationUs = STEP_US + TOKEN_US * tokens
    this.nowUs += durationUs
    const here = flown.items.filter(({ request }) => this.requests.get(request.id) === request)
    const landed: Landed = {
      ...{ step: flown.seq, atUs: this.nowUs, durationUs },
      ids: columnOf(here.map(({ request }) => request.id)),
      produced: columnOf(here.map((item) => this.#yield(item))),
      flags: columnOf(here.map(({ request }) => (this.requests.has(request.id) ? 0 : LANDED.stopped))),
    }
    this.#landed.push(landed)
  }

  /** How many tokens come out. */
  #yield({ request, sample }: Flying["items"][number]): number {
    if (!sample) return 0
    request.output++
    request.tokensUs.push(this.nowUs)
    if (request.output >= Math.min(request.stopsAfter, request.maxOutputTokens)) {
      this.requests.delete(request.id)
      this.ended.push(request)
    }
    return 1
  }

  async #tell(ran: Ran | null): Promise<void> {
    const step: StepMessage = {
      ...{ type: "step", seq: ++this.#seq, nowUs: this.nowUs, ran, landed: this.#landed.splice(0) },
      arrived: this.#arrived
        .splice(0)
        .flatMap((request) => (this.requests.has(request.id) ? this.#arrivedOf(request) : [])),
      ...(this.#cancelled.length > 0 && { cancelled: columnOf(this.#cancelled.splice(0)) }),
    }
    this.#write(step)
    while (this.connected && this.#plan?.seq !== this.#seq)
      await new Promise<void>((woken) => (this.#waiting = woken))
  }

  #arrivedOf({
    id,
    atUs,
    promptTokens,
    maxOutputTokens,
    slo,
    computed,
    output,
    tokensUs,
  }: PlayedRequest): Arrived {
    const arrived = { id, ageUs: this.nowUs - atUs, promptTokens, maxOutputTokens, slo, lora: null }
    const began = computed > 0 || output > 0
    const agoUs = columnOf(tokensUs.map((us) => this.nowUs - us))
    const tokens = columnOf(tokensUs.map(() => 1))
    return {
      ...{ ...arrived, waitsForGrammar: false },
      ...(began && { begun: { output, computed, agoUs, tokens, even: false } }),
    }
  }

  #write(message: ToPlanner): void {
    this.#socket?.write(encodeFrame(toWire(message)))
  }

  #wake(): void {
    const waiting = this.#waiting
    this.#waiting = null
    waiting?.()
  }
}

function columnsOf(items: Flying["items"]) {
  return {
    ids: columnOf(items.map(({ request }) => request.id)),
    positions: columnOf(items.map(({ position }) => position)),
    tokens: columnOf(items.map(({ tokens }) => tokens)),
    drafts: columnOf(items.map(({ draft }) => draft)),
  }
}
