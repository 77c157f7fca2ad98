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

/** How an engine goes its own ways, as vLLM does under pressure: chances, each step or item. */
export interface OwnWays {
  /** 0 to 1, the same each time. */
  random: () => number
  /** The plan comes too late, and the engine schedules by itself. */
  ignores: number
  /** A planned item is left out, or is shorter. */
  leavesOut: number
  shortens: number
  /** The engine takes a request's KV by itself. */
  drops: number
  /** A drafted token is accepted. */
  accepts: number
}

const OBEDIENT: OwnWays = {
  ...{ random: () => 0.5, ignores: 0, leavesOut: 0, shortens: 0, drops: 0, accepts: 0.7 },
}

export interface PlayedRequest {
  id: number
  promptTokens: number
  maxOutputTokens: number
  slo: Record<string, unknown>
  /** As vLLM calls it. */
  name?: string
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
  nowUs = 1_000_000
  /** Plans that were not as the engine's own account has it. */
  readonly misfits: string[] = []
  /** Planned items for which the engine had no KV. */
  squeezed = 0
  #socket: Socket | null = null
  #plan: PlanMessage | null = null
  #waiting: (() => void) | null = null
  #flying: Flying[] = []
  #landed: Landed[] = []
  #arrived: PlayedRequest[] = []
  #cancelled: number[] = []
  #lost: number[] = []
  readonly #ways: OwnWays
  #seq = 0
  #nextId = 1

  constructor(engine: Partial<EngineMessage> = {}, ways: Partial<OwnWays> = {}) {
    this.engine = { ...ENGINE, ...engine }
    this.#ways = { ...OBEDIENT, ...ways }
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
    this.#lost = []
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
    const plan = this.connected && !this.#chance("ignores") ? this.#plan : null
    this.#plan = null
    if (this.#chance("drops")) this.#dropAny()
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
    const exact = planned && isPlan(plan, flying.items)
    this.steps[planned ? (exact ? "plan" : "changed") : "engine"]++
    const head = { batch: planned ? plan.batch : 0, atUs: this.nowUs }
    return { ran: exact ? { ...head, exact } : { ...head, exact: false, ...columnsOf(flying.items) }, flying }
  }

  #obey(plan: PlanMessage): Flying["items"] {
    const { ids, tokens, drafts, evict = columnOf([]) } = plan
    for (const id of evict) {
      const request = this.requests.get(id)
      if (request !== undefined) request.computed = 0
    }
    const items: Flying["items"] = []
    let free = this.engine.limits.kvTokens - this.#kvUsed
    for (let i = 0; i < ids.length; i++) {
      const request = this.requests.get(ids[i]!)
      // It has ended, or its KV went, since the plan was made.
      if (request === undefined || this.#lost.includes(request.id)) continue
      if (this.#chance("leavesOut")) continue
      const held = this.#blocksOf(request.computed)
      const position = this.#startOf(request, plan.positions[i]!)
      const known = request.promptTokens + request.scheduledOutput
      const count = Math.min(tokens[i]!, known - position)
      const cut = count > 1 && this.#chance("shortens") ? Math.ceil(count / 2) : count
      const draft = cut === tokens[i] ? (drafts?.[i] ?? 0) : 0
      const needed = this.#blocksOf(position + cut + draft) - held
      if (needed > free) {
        this.squeezed++
        continue
      }
      free -= needed
      items.push({ request, position, tokens: cut, sample: position + cut === known, draft })
    }
    return items
  }

  /** From where a planned request is computed. */
  #startOf(request: PlayedRequest, planned: number): number {
    if (planned === 0) request.computed = 0
    const { id, computed } = request
    // Drafts may have been refused since the plan was made: then it is less.
    const refused = computed < planned && this.engine.maxDrafts > 0
    if (computed !== planned && !refused)
      this.misfits.push(`request ${id}: position ${planned}, where ${computed} tokens are computed`)
    return computed
  }

  #chance(way: Exclude<keyof OwnWays, "random">): boolean {
    return this.#ways[way] > 0 && this.#ways.random() < this.#ways[way]
  }

  #dropAny(): void {
    const running = [...this.requests.values()].filter(({ computed }) => computed > 0)
    this.#dropOne(running[Math.floor(this.#ways.random() * running.length)])
  }

  #dropOne(victim: PlayedRequest | undefined): void {
    if (victim === undefined) return
    victim.computed = 0
    this.#lost.push(victim.id)
  }

  /** In whole blocks. */
  get #kvUsed(): number {
    let used = 0
    for (const { computed } of this.requests.values()) used += this.#blocksOf(computed)
    return used
  }

  #blocksOf(tokens: number): number {
    const { blockTokens } = this.engine.limits
    return Math.ceil(tokens / blockTokens) * blockTokens
  }

  /** vLLM's own order: those that run, then those that wait, as they came. Where none has room, the last one gives its KV up. */
  #firstCome(): Flying["items"] {
    const { maxBatchTokens, maxSequences, kvTokens } = this.engine.limits
    const items: Flying["items"] = []
    let room = maxBatchTokens
    let free = kvTokens - this.#kvUsed
    const all = [...this.requests.values()]
    const running = all.filter(({ computed }) => computed > 0)
    for (const request of [...running, ...all.filter(({ computed }) => computed === 0)]) {
      const { computed: position, promptTokens, scheduledOutput, maxOutputTokens } = request
      const known = promptTokens + scheduledOutput
      const held = this.#blocksOf(position)
      const tokens = Math.min(room, known - position, held - position + free)
      const starts = position === 0 && running.length + items.length >= maxSequences
      if (tokens < 1 || starts || scheduledOutput >= maxOutputTokens) continue
      items.push({ request, position, tokens, sample: position + tokens === known, draft: 0 })
      room -= tokens
      free -= this.#blocksOf(position + tokens) - held
    }
    if (items.length === 0 && this.#flying.length === 0) this.#dropOne(running.at(-1))
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
  #yield({ request, sample, draft }: Flying["items"][number]): number {
    if (!sample) return 0
    let accepted = 0
    while (accepted < draft && this.#chance("accepts")) accepted++
    const end = Math.min(request.stopsAfter, request.maxOutputTokens)
    const tokens = Math.min(1 + accepted, end - request.output)
    const refused = 1 + draft - tokens
    if (request.computed > 0) request.computed -= refused
    request.scheduledOutput -= refused
    request.output += tokens
    for (let i = 0; i < tokens; i++) request.tokensUs.push(this.nowUs)
    if (request.output >= end) {
      this.requests.delete(request.id)
      this.ended.push(request)
    }
    return tokens
  }

  async #tell(ran: Ran | null): Promise<void> {
    const step: StepMessage = {
      ...{ type: "step", seq: ++this.#seq, nowUs: this.nowUs, ran, landed: this.#landed.splice(0) },
      arrived: this.#arrived
        .splice(0)
        .flatMap((request) => (this.requests.has(request.id) ? this.#arrivedOf(request) : [])),
      ...(this.#cancelled.length > 0 && { cancelled: columnOf(this.#cancelled.splice(0)) }),
      ...(this.#lost.length > 0 && { lost: columnOf(this.#lost.splice(0)) }),
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
    name,
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
      ...(name !== undefined && { name }),
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

/** To the token, but for drafts that were refused since. */
function isPlan({ ids, positions, tokens, drafts }: PlanMessage, items: Flying["items"]): boolean {
  const same = ({ request, position, tokens: count, draft }: Flying["items"][number], i: number) =>
    request.id === ids[i] && position <= positions[i]! && count === tokens[i] && draft === (drafts?.[i] ?? 0)
  return ids.length === items.length && items.every(same)
}

function columnsOf(items: Flying["items"]) {
  return {
    ids: columnOf(items.map(({ request }) => request.id)),
    positions: columnOf(items.map(({ position }) => position)),
    tokens: columnOf(items.map(({ tokens }) => tokens)),
    drafts: columnOf(items.map(({ draft }) => draft)),
  }
}
