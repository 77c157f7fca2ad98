/** An engine with the plug-in, played: says what vLLM's would say over a real socket, on a clock of its own, and obeys plans as
 * far as they can be obeyed. It keeps its own account of every request, and complains of plans that do not fit it. */
import { createConnection, type Socket } from "node:net"
import { encodeFrame, FrameReader } from "../wire/frames.ts"
import { columnOf } from "../wire/planner/columns.ts"
import {
  type Arrived,
  type EngineMessage,
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
import {
  type FlyingItem,
  isPlan,
  type OwnWays,
  type PlayedRequest,
  PlayedScheduler,
} from "./played-scheduler.ts"

export type { OwnWays, PlayedRequest } from "./played-scheduler.ts"

export const ENGINE: EngineMessage = {
  ...{ type: "engine", name: "played", model: "tiny", device: "none", dtype: "float32" },
  limits: {
    ...{ kvTokens: 4096, blockTokens: 16, maxSequences: 16, maxBatchTokens: 256, contextTokens: 1024 },
    minChunkTokens: 16,
  },
  ...{ depth: 2, prefixCaching: false, maxDrafts: 0, tellsThinking: false },
  ...{ tensorParallel: 1, pipelineParallel: 1, dataRank: 0, captureSizes: [], graphMode: "NONE" },
  ...{ eager: true, vllmVersion: "0.32.0", pluginVersion: "0.1.0" },
}

interface Flying {
  seq: number
  atUs: number
  items: FlyingItem[]
}

const STEP_US = 5_000
const TOKEN_US = 50

export class PlayedEngine {
  readonly engine: EngineMessage
  /** What the planner has said, other than plans. */
  readonly said: Exclude<ToPlugin, PlanMessage>[] = []
  /** Steps by plan, and by the engine's own choice. */
  readonly steps = { plan: 0, changed: 0, engine: 0 }
  nowUs = 1_000_000
  #socket: Socket | null = null
  #plan: PlanMessage | null = null
  #waiting: (() => void) | null = null
  #flying: Flying[] = []
  #landed: Landed[] = []
  #arrived: PlayedRequest[] = []
  #cancelled: number[] = []
  readonly #scheduler: PlayedScheduler
  #seq = 0
  #nextId = 1

  constructor(engine: Partial<EngineMessage> = {}, ways: Partial<OwnWays> = {}) {
    this.engine = { ...ENGINE, ...engine }
    this.#scheduler = new PlayedScheduler(this.engine, ways)
  }

  /** Live, in order of arrival. */
  get requests(): Map<number, PlayedRequest> {
    return this.#scheduler.requests
  }
  get ended(): readonly PlayedRequest[] {
    return this.#scheduler.ended
  }
  /** Plans that were not as the engine's own account has it. */
  get misfits(): readonly string[] {
    return this.#scheduler.misfits
  }
  /** Planned items for which the engine had no KV. */
  get squeezed(): number {
    return this.#scheduler.squeezed
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
    this.#scheduler.lost = []
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
    const renews = this.#arrived.length > 0 && this.#scheduler.renewsPlan
    if (this.connected && (this.#needsPlan || renews)) await this.#tell(null)
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
    const plan = this.connected && !this.#scheduler.ignoresPlan ? this.#plan : null
    this.#plan = null
    this.#scheduler.dropAny()
    const planned = plan !== null && plan.batch !== 0
    const flying = {
      atUs: this.nowUs,
      items: planned ? this.#scheduler.obey(plan) : plan === null ? this.#byItself() : [],
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

  #byItself(): FlyingItem[] {
    return this.#scheduler.firstCome(this.#flying.length > 0)
  }

  #land(): void {
    const flown = this.#flying.shift()
    if (flown === undefined) return
    const tokens = flown.items.reduce((sum, item) => sum + item.tokens + item.draft, 0)
    const durationUs = STEP_US + TOKEN_US * tokens
    this.nowUs += durationUs
    const here = flown.items.filter(({ request }) => this.requests.get(request.id) === request)
    const produced = here.map((item) => this.#scheduler.yields(item, this.nowUs))
    // As the plug-in tells it: what is as it nearly always is, is left out.
    const isUsual = here.length === flown.items.length && produced.every((count) => count === 1)
    const stopped = here.filter(({ request }) => !this.requests.has(request.id))
    const landed: Landed = {
      ...{ step: flown.seq, atUs: this.nowUs, durationUs },
      ...(!isUsual && { ids: idsOf(here), produced: columnOf(produced) }),
      ...(stopped.length > 0 && { stopped: idsOf(stopped) }),
    }
    this.#landed.push(landed)
  }

  async #tell(ran: Ran | null): Promise<void> {
    const { lost } = this.#scheduler
    const step: StepMessage = {
      ...{ type: "step", seq: ++this.#seq, nowUs: this.nowUs, ran, landed: this.#landed.splice(0) },
      arrived: this.#arrived
        .splice(0)
        .flatMap((request) => (this.requests.has(request.id) ? this.#arrivedOf(request) : [])),
      ...(this.#cancelled.length > 0 && { cancelled: columnOf(this.#cancelled.splice(0)) }),
      ...(lost.length > 0 && { lost: columnOf(lost.splice(0)) }),
      kvFreeTokens: this.#scheduler.freeTokens,
    }
    this.#write(step)
    while (this.connected && this.#plan?.seq !== this.#seq)
      await new Promise<void>((woken) => (this.#waiting = woken))
  }

  #arrivedOf(request: PlayedRequest): Arrived {
    const { id, atUs, promptTokens, maxOutputTokens, slo, name, computed, output, tokensUs } = request
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

function idsOf(items: readonly FlyingItem[]) {
  return columnOf(items.map(({ request }) => request.id))
}

function columnsOf(items: readonly FlyingItem[]) {
  return {
    ids: idsOf(items),
    positions: columnOf(items.map(({ position }) => position)),
    tokens: columnOf(items.map(({ tokens }) => tokens)),
    drafts: columnOf(items.map(({ draft }) => draft)),
  }
}
