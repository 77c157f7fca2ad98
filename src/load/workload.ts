/** Scenarios and the making of plans: who sends how much, when, of what length (DESIGN §7). */
import { UserError } from "../errors.ts"
import { Random } from "../random.ts"
import { type ArrivalName, arrivalTimes } from "./arrivals.ts"
import { fromTrace, type LengthSource, type PublishedName, published } from "./lengths.ts"
import type { Plan, PlannedRequest, PlannedRound } from "./plan.ts"
import type { Trace } from "./trace.ts"

export const APPS = ["chat", "code", "summarize", "reasoning", "tools"] as const
export type AppName = (typeof APPS)[number]

/** Share of the requests (tool sessions count once) of each app. */
export const SCENARIOS: Readonly<Record<string, Partial<Record<AppName, number>>>> = {
  mixed: { chat: 0.35, code: 0.25, summarize: 0.2, reasoning: 0.1, tools: 0.1 },
  chat: { chat: 1 },
  code: { code: 1 },
  summarize: { summarize: 1 },
  reasoning: { reasoning: 1 },
  tools: { tools: 1 },
}

export interface WorkloadOptions {
  scenario: string
  /** Requests per second over all apps. */
  ratePerSec: number
  durationMs: number
  seed: number
  /** All lengths (and tool delays) are divided by this. */
  scale: number
  arrivals: ArrivalName
  burstiness: number
  /** Longest history + prompt + output of a round, after scaling; longer ones are shortened. */
  maxSequenceTokens: number
  traces: Partial<Record<AppName, Trace>>
}

export function makePlan(options: WorkloadOptions): Plan {
  const shares = SCENARIOS[options.scenario]
  if (shares === undefined) {
    throw new UserError(`unknown scenario "${options.scenario}"; known: ${Object.keys(SCENARIOS).join(", ")}`)
  }
  checkNumbers(options)
  const apps = Object.entries(shares) as [AppName, number][]
  const counts = apportion(
    Math.round((options.ratePerSec * options.durationMs) / 1000),
    apps.map(([, share]) => share),
  )
  const sources: Record<string, string> = {}
  const requests: PlannedRequest[] = []
  for (const [i, [app]] of apps.entries()) {
    // One stream for times and one for lengths: at another rate the same seed draws the same lengths.
    const trace = options.traces[app]
    const timed = timesOf(app, options.traces)
    const fromTraces = options.arrivals === "trace" || options.arrivals === "superposed"
    const process = fromTraces && app === "summarize" && timed === undefined ? "poisson" : options.arrivals
    const times = arrivalTimes(process, {
      count: counts[i]!,
      spanMs: options.durationMs,
      burstiness: options.burstiness,
      trace: timed,
      random: new Random(options.seed, app, "arrivals"),
    })
    const random = new Random(options.seed, app, "lengths")
    const draw = drawerOf(app, trace)
    sources[app] = draw.source
    for (const [n, atMs] of times.entries()) {
      const rounds = draw.rounds(random).map((round) => scaled(round, options.scale))
      requests.push({
        atMs: Math.round(atMs * 1000) / 1000,
        app,
        session: rounds.length > 1 ? `${options.seed}-${app}-${n}` : null,
        rounds: fitted(rounds, options.maxSequenceTokens),
      })
    }
  }
  requests.sort((a, b) => a.atMs - b.atMs)
  return {
    header: {
      plan: 1,
      scenario: options.scenario,
      seed: options.seed,
      ratePerSec: options.ratePerSec,
      durationMs: options.durationMs,
      scale: options.scale,
      arrivals: options.arrivals,
      burstiness: options.arrivals === "gamma" ? options.burstiness : null,
      sources,
    },
    requests,
  }
}

/** Whose timestamps an app's arrivals follow (DESIGN §7): its own trace's; chat's for the synthetic apps; and
 * summaries, whose trace has none, arrive by Poisson. */
function timesOf(app: AppName, traces: WorkloadOptions["traces"]): Trace | undefined {
  const own = traces[app]
  if (own?.rows[0]?.atMs !== undefined || app === "summarize")
    return own?.rows[0]?.atMs === undefined ? undefined : own
  return app === "reasoning" || app === "tools" ? traces.chat : own
}

function checkNumbers(options: WorkloadOptions): void {
  const { ratePerSec, durationMs, scale, burstiness, seed, maxSequenceTokens } = options
  const positive = (value: number, name: string) => {
    if (!(value > 0) || !Number.isFinite(value))
      throw new UserError(`${name} must be a number above 0; it is ${value}`)
  }
  positive(ratePerSec, "--request-rate")
  positive(durationMs, "--duration")
  positive(scale, "--scale")
  positive(burstiness, "--burstiness")
  positive(maxSequenceTokens, "--max-sequence-tokens")
  if (!Number.isInteger(seed)) throw new UserError(`--seed must be a whole number; it is ${seed}`)
  const count = (ratePerSec * durationMs) / 1000
  if (ratePerSec > 10_000 || count > 1e6) {
    throw new UserError(
      `--request-rate ${ratePerSec} over ${durationMs / 1000} s is ${Math.round(count)} requests: more than one generator can send ` +
        "(at most 10000/s and a million requests)",
    )
  }
  if (Math.round(count) < 1) {
    throw new UserError(
      `--request-rate ${ratePerSec} over ${durationMs / 1000} s sends no request: raise the rate or --duration`,
    )
  }
}

/** Whole numbers in these shares that add up to `total` (largest remainders). */
function apportion(total: number, shares: readonly number[]): number[] {
  const sum = shares.reduce((a, b) => a + b, 0)
  const exact = shares.map((share) => (share / sum) * total)
  const counts = exact.map(Math.floor)
  const order = exact
    .map((value, i) => ({ i, rest: value - Math.floor(value) }))
    .sort((a, b) => b.rest - a.rest)
  const missing = total - counts.reduce((a, b) => a + b, 0)
  for (const { i } of order.slice(0, missing)) counts[i]!++
  return counts
}

interface Drawer {
  source: string
  rounds(random: Random): PlannedRound[]
}

function drawerOf(app: AppName, trace: Trace | undefined): Drawer {
  if (app === "reasoning")
    return { source: "synthetic (lognormal prompt, thinking and answer)", rounds: drawReasoning }
  if (app === "tools") return { source: "synthetic (2 to 5 rounds of tool calls)", rounds: drawTools }
  const lengths: LengthSource =
    trace === undefined ? published(app satisfies PublishedName) : fromTrace(trace)
  return {
    source: lengths.source,
    rounds: (random) => [{ class: app, ...pick(lengths.draw(random)), thinkingTokens: 0, delayMs: 0 }],
  }
}

function pick(lengths: { promptTokens: number; outputTokens: number }) {
  return { promptTokens: lengths.promptTokens, outputTokens: lengths.outputTokens }
}

function drawReasoning(random: Random): PlannedRound[] {
  const promptTokens = random.lognormal(120, 0.8)
  const thinkingTokens = Math.min(8192, lognormalOfMean(random, 3000, 0.7))
  const outputTokens = thinkingTokens + lognormalOfMean(random, 600, 0.6)
  return [{ class: "reasoning", promptTokens, outputTokens, thinkingTokens, delayMs: 0 }]
}

function drawTools(random: Random): PlannedRound[] {
  const count = random.integer(2, 6)
  return Array.from({ length: count }, (_, i) => {
    const last = i === count - 1
    return {
      class: last ? "tools_final" : "tools",
      promptTokens: i === 0 ? 300 + random.lognormal(1000, 0.5) : Math.min(3000, random.lognormal(600, 0.8)),
      outputTokens: random.lognormal(last ? 200 : 80, 0.6),
      thinkingTokens: 0,
      delayMs: i === 0 ? 0 : random.exponential(1000),
    }
  })
}

function lognormalOfMean(random: Random, mean: number, sigma: number): number {
  return random.lognormal(mean / Math.exp(sigma ** 2 / 2), sigma)
}

function scaled(round: PlannedRound, scale: number): PlannedRound {
  const thinkingTokens = Math.round(round.thinkingTokens / scale)
  return {
    ...round,
    promptTokens: Math.max(1, Math.round(round.promptTokens / scale)),
    outputTokens: Math.max(
      1,
      thinkingTokens > 0 ? thinkingTokens + 1 : 1,
      Math.round(round.outputTokens / scale),
    ),
    thinkingTokens,
    delayMs: Math.round(round.delayMs / scale),
  }
}

/** Shortens what does not fit the context: outputs down to a quarter of it, then prompts; a session ends
 * (with its final class) before a round that would not fit at all. */
function fitted(rounds: PlannedRound[], limit: number): PlannedRound[] {
  const kept: PlannedRound[] = []
  let history = 0
  for (const round of rounds) {
    const room = limit - history
    if (kept.length > 0 && round.promptTokens + round.outputTokens > room) break
    const outputTokens = Math.max(
      1,
      Math.min(round.outputTokens, Math.max(Math.floor(limit / 4), room - round.promptTokens)),
    )
    const promptTokens = Math.max(1, Math.min(round.promptTokens, room - outputTokens))
    const thinkingTokens = Math.min(round.thinkingTokens, outputTokens - 1)
    kept.push({ ...round, promptTokens, outputTokens, thinkingTokens })
    history += promptTokens + outputTokens
  }
  kept[kept.length - 1]!.class = rounds.at(-1)!.class
  return kept
}
