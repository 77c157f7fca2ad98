/** What tenants send in each case of the bench: streams of requests, drawn from the seed, stream by stream. */
import { prefillUs } from "../../src/core/planner/prefill-time.ts"
import type { RequestId, Slo, Tier } from "../../src/core/protocol.ts"
import { Random } from "../../src/random.ts"
import { HARDWARE } from "../../src/sim/presets.ts"
import type { SimRequest } from "../../src/sim/simulate.ts"

export const HARDWARE_NAME = "opt-6.7b-a100"
const { cost, maxBatchTokens, contextTokens } = HARDWARE[HARDWARE_NAME]!
const BLOCK_TOKENS = 16
const MOST_BLOCKS = 1000

interface Shape {
  promptTokens: number
  outputTokens: number
  sigma: number
  /** First token due after so many zero-load prefill times. */
  slowdown: number
  tpotMs: number
  tier?: Tier
  /** A session of so many rounds, each of the first one's prompt and more; default one. */
  rounds?: number
}

/** Medians of lengths; the objectives are those of the built-in classes. */
const SHAPES = {
  chat: { promptTokens: 150, outputTokens: 150, sigma: 0.8, slowdown: 5, tpotMs: 100 },
  long: { promptTokens: 2500, outputTokens: 80, sigma: 0.5, slowdown: 3, tpotMs: 100 },
  tools: { promptTokens: 800, outputTokens: 60, sigma: 0.5, slowdown: 3, tpotMs: 50, rounds: 4 },
  code: { promptTokens: 800, outputTokens: 20, sigma: 0.7, slowdown: 5, tpotMs: 50 },
  batch: {
    promptTokens: 400,
    outputTokens: 150,
    sigma: 0.8,
    slowdown: 0,
    tpotMs: Infinity,
    tier: "bestEffort",
  },
} as const satisfies Record<string, Shape>

export interface Stream {
  tenant: string
  shape: keyof typeof SHAPES
  /** So many at once … */
  burst?: number
  /** … every so often, s; by default a burst is one request, and these come like clockwork. */
  everyS?: number
  /** Instead: so many a second, by chance. */
  ratePerSec?: number
}

export interface Case {
  name: string
  /** By tenant, in the order of their numbers. */
  weights: Readonly<Record<string, number>>
  streams: readonly Stream[]
  durationS: number
  replicas?: number
  kvTokens?: number
  /** Tenants that stay within their share: they are also played alone. */
  light: readonly string[]
}

const FLOOD: Stream = { tenant: "A", shape: "chat", burst: 300, everyS: 5 }
const ONE_A_SECOND: Stream = { tenant: "B", shape: "chat", everyS: 1 }
const TWO = { A: 1, B: 1 }

export const CASES: readonly Case[] = [
  { name: "flood", weights: TWO, streams: [FLOOD, ONE_A_SECOND], durationS: 60, light: ["B"] },
  {
    name: "flood, KV of 16k",
    weights: TWO,
    streams: [FLOOD, ONE_A_SECOND],
    durationS: 60,
    kvTokens: 16_384,
    light: ["B"],
  },
  {
    name: "flood, B's prompts long",
    weights: TWO,
    streams: [FLOOD, { tenant: "B", shape: "long", everyS: 2 }],
    durationS: 60,
    light: ["B"],
  },
  {
    name: "flood of long prompts",
    weights: TWO,
    streams: [{ tenant: "A", shape: "long", burst: 60, everyS: 5 }, ONE_A_SECOND],
    durationS: 60,
    light: ["B"],
  },
  {
    name: "flood, B has tool sessions",
    weights: TWO,
    streams: [FLOOD, { tenant: "B", shape: "tools", everyS: 2 }],
    durationS: 60,
    light: ["B"],
  },
  {
    name: "10,000 at once",
    weights: TWO,
    streams: [{ tenant: "A", shape: "chat", burst: 10_000, everyS: 1000 }, ONE_A_SECOND],
    durationS: 30,
    light: ["B"],
  },
  {
    name: "two replicas, twice the flood",
    weights: TWO,
    streams: [
      { ...FLOOD, burst: 600 },
      { ...ONE_A_SECOND, everyS: 0.5 },
    ],
    durationS: 60,
    replicas: 2,
    light: ["B"],
  },
  {
    name: "weights 1, 2, 4, all flood",
    weights: { A: 1, B: 2, C: 4 },
    streams: chats({ A: 40, B: 40, C: 40 }),
    durationS: 60,
    light: [],
  },
  {
    name: "three tenants, one floods",
    weights: { A: 1, B: 1, C: 1 },
    streams: [
      FLOOD,
      { tenant: "B", shape: "code", ratePerSec: 3 },
      { tenant: "C", shape: "tools", everyS: 4 },
    ],
    durationS: 60,
    light: ["B", "C"],
  },
  {
    name: "best effort, 1,000 at once",
    weights: TWO,
    streams: [
      { tenant: "A", shape: "batch", burst: 1000, everyS: 1000 },
      { tenant: "B", shape: "batch", everyS: 2 },
    ],
    durationS: 60,
    light: ["B"],
  },
  {
    name: "steady flood",
    weights: TWO,
    streams: chats({ A: 60, B: 1 }),
    durationS: 60,
    light: ["B"],
  },
  {
    name: "steady flood of two replicas",
    weights: TWO,
    streams: chats({ A: 120, B: 2 }),
    durationS: 60,
    replicas: 2,
    light: ["B"],
  },
  {
    name: "weights 3 and 1, both flood",
    weights: { A: 3, B: 1 },
    streams: chats({ A: 60, B: 60 }),
    durationS: 60,
    light: [],
  },
  ...[20, 24].map((rate) => behave(`2 tenants, chat, ${rate}/s`, 2, { chat: rate / 2 })),
  ...[20, 24].map((rate) => behave(`8 tenants, chat, ${rate}/s`, 8, { chat: rate / 8 })),
  ...[5, 7].map((rate) => behave(`4 tenants, code, ${rate}/s`, 4, { code: rate / 4 })),
  ...[6, 8].map((rate) =>
    behave(`3 tenants, each chat, code and long, ${rate}/s`, 3, {
      ...{ chat: (0.6 * rate) / 3, code: (0.3 * rate) / 3, long: (0.1 * rate) / 3 },
    }),
  ),
  ...[6, 8].map((rate) => unlike(`3 tenants, one each of chat, code and long, ${rate}/s`, rate)),
  behave("100 tenants, chat, 24/s", 100, { chat: 0.24 }),
  {
    ...behave("100 tenants, 20/s, and one that floods", 100, { chat: 0.2 }),
    weights: { ...weightsOf(100), A: 1 },
    streams: [...behave("", 100, { chat: 0.2 }).streams, FLOOD],
    durationS: 60,
  },
  {
    name: "A alone, flood",
    weights: { A: 1 },
    streams: [FLOOD],
    durationS: 60,
    light: [],
  },
]

function weightsOf(tenants: number): Record<string, number> {
  return Object.fromEntries(Array.from({ length: tenants }, (_, i) => [`T${i}`, 1]))
}

/** Tenants that send the same, each so many a second by shape. */
function behave(name: string, tenants: number, rates: Partial<Record<keyof typeof SHAPES, number>>): Case {
  const weights = weightsOf(tenants)
  const streams = Object.keys(weights).flatMap((tenant) =>
    Object.entries(rates).map(([shape, ratePerSec]) => ({
      ...{ tenant, shape: shape as keyof typeof SHAPES, ratePerSec },
    })),
  )
  return { name, weights, streams, durationS: 120, light: [] }
}

function unlike(name: string, rate: number): Case {
  const streams: Stream[] = [
    { tenant: "A", shape: "chat", ratePerSec: 0.6 * rate },
    { tenant: "B", shape: "code", ratePerSec: 0.3 * rate },
    { tenant: "C", shape: "long", ratePerSec: 0.1 * rate },
  ]
  return { name, weights: { A: 1, B: 1, C: 1 }, streams, durationS: 120, light: [] }
}

/** Each tenant so many a second, by chance. */
function chats(rates: Readonly<Record<string, number>>): Stream[] {
  return Object.entries(rates).map(([tenant, ratePerSec]) => ({ tenant, shape: "chat", ratePerSec }))
}

/** The requests of a case; `only`: of this tenant. A stream draws the same whatever else is played. */
export class Requests {
  readonly first: SimRequest[] = []
  /** All, later rounds included. */
  readonly all = new Map<RequestId, SimRequest>()
  /** Rounds that follow one. */
  #next = new Map<RequestId, SimRequest>()

  constructor({ streams, weights, durationS }: Case, seed: number, only?: string) {
    const numbers = Object.keys(weights)
    for (const [index, stream] of streams.entries()) {
      if (only !== undefined && stream.tenant !== only) continue
      const random = new Random(seed, "tenants", index)
      for (const atUs of arrivals(stream, durationS, random)) {
        const rounds = this.#rounds(SHAPES[stream.shape], numbers.indexOf(stream.tenant), random)
        this.first.push({ ...rounds[0]!, atUs })
        for (const [i, round] of rounds.slice(1).entries()) this.#next.set(rounds[i]!.spec.id, round)
      }
    }
    this.first.sort((a, b) => a.atUs - b.atUs)
  }

  follow(id: RequestId, nowUs: number): SimRequest | null {
    const next = this.#next.get(id)
    return next === undefined ? null : { ...next, atUs: nowUs + BETWEEN_ROUNDS_US }
  }

  #rounds(shape: Shape, tenant: number, random: Random): SimRequest[] {
    const { rounds = 1, sigma, tpotMs, tier = "slo", slowdown } = shape
    const session = this.all.size
    let history = 0
    return Array.from({ length: rounds }, () => {
      const drawn = (median: number) => Math.max(4, Math.round(random.lognormal(median, sigma)))
      const outputTokens = drawn(shape.outputTokens)
      const promptTokens = Math.min(history + drawn(shape.promptTokens), contextTokens - outputTokens)
      const blocks = Array.from(
        { length: Math.floor((promptTokens + outputTokens) / BLOCK_TOKENS) },
        (_, block) => session * MOST_BLOCKS + block,
      )
      history = promptTokens + outputTokens
      const request: SimRequest = {
        ...{ atUs: 0, outputTokens, blocks },
        spec: {
          id: this.all.size,
          ...{ app: APPS.indexOf(shape), tenant, tier, promptTokens, thinking: false },
          session: rounds > 1 ? session : -1,
          maxOutputTokens: contextTokens - promptTokens,
          prefix: blocks.slice(0, Math.floor(promptTokens / BLOCK_TOKENS)),
          slo: sloOf(slowdown, tpotMs, promptTokens),
        },
      }
      this.all.set(request.spec.id, request)
      return request
    })
  }
}

const APPS: readonly Shape[] = Object.values(SHAPES)
export const APP_COUNT = APPS.length
const BETWEEN_ROUNDS_US = 1_000_000

/** TTFT by the zero-load prefill of the whole prompt. */
function sloOf(slowdown: number, tpotMs: number, promptTokens: number): Slo {
  const ttftUs = slowdown > 0 ? slowdown * prefillUs(cost, 0, promptTokens, maxBatchTokens) : Infinity
  const tpotUs = tpotMs * 1000
  return { ttftUs, ttftSlowdown: 0, tpotUs, thinkingTpotUs: tpotUs, maxGapUs: Infinity }
}

function arrivals({ burst = 1, everyS, ratePerSec }: Stream, durationS: number, random: Random): number[] {
  const times: number[] = []
  let atUs = ratePerSec === undefined ? 0 : random.exponential(1e6 / ratePerSec)
  while (atUs < durationS * 1e6) {
    for (let i = 0; i < burst; i++) times.push(Math.round(atUs))
    atUs += ratePerSec === undefined ? everyS! * 1e6 : random.exponential(1e6 / ratePerSec)
  }
  return times
}
