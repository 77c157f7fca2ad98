/** Scenarios and the making of plans: which app sends how much, when, of what length (docs/design.md, Workloads). */
import { UserError } from "../errors.ts"
import { Random } from "../random.ts"
import { type AppName, type Drawer, drawerOf, isSynthetic } from "./apps.ts"
import { type ArrivalName, arrivals, followsTrace, type TraceTimes } from "./arrivals.ts"
import { BURSTS, burstTimes } from "./bursts.ts"
import type { Plan, PlannedRequest, PlannedRound } from "./plan.ts"
import { type Prefixed, scaledPrefix, shareWithin } from "./prefix.ts"
import { type Scaling, scaledTokens } from "./sessions.ts"
import type { Trace } from "./trace.ts"

export { APPS, type AppName } from "./apps.ts"

/** Share of the requests (sessions count once) of each app: the paper's six scenarios (docs/design.md, Workloads), a
 * mix of their apps, and chats that share system prompts. */
export const SCENARIOS: Readonly<Record<string, Partial<Record<AppName, number>>>> = {
  chatbot: { chat: 1 },
  coder: { code: 1 },
  summarizer: { summarize: 1 },
  mixed: { chat: 1 / 3, code: 1 / 3, summarize: 1 / 3 },
  reasoning: { reasoning: 1 },
  tools: { tools: 1 },
  all: { chat: 0.35, code: 0.25, summarize: 0.2, reasoning: 0.1, tools: 0.1 },
  shared: { shared: 1 },
}

/** Other names of scenarios. */
export const ALIASES: Readonly<Record<string, string>> = {
  chat: "chatbot",
  code: "coder",
  summarize: "summarizer",
}

/** The app of a scenario of one app (or the app's own name), for options that are given per app. */
export function appOf(scenario: string): string {
  const apps = Object.keys(SCENARIOS[ALIASES[scenario] ?? scenario] ?? {})
  return apps.length === 1 ? apps[0]! : scenario
}

function sharesOf(scenario: string): Partial<Record<AppName, number>> {
  const name = ALIASES[scenario] ?? scenario
  if (Object.hasOwn(SCENARIOS, name)) return SCENARIOS[name]!
  throw new UserError(`unknown scenario "${scenario}"; known: ${Object.keys(SCENARIOS).join(", ")}`)
}

/** What a scenario takes from the trace of `app`: lengths; or times alone, for its synthetic apps, where arrivals follow
 * a trace; or nothing. */
export function useOfTrace(scenario: string, app: AppName): "lengths" | "times" | null {
  const apps = Object.keys(sharesOf(scenario)) as AppName[]
  if (isSynthetic(app)) return null
  if (apps.includes(app)) return "lengths"
  return app === "chat" && apps.some(isSynthetic) ? "times" : null
}

export interface WorkloadOptions extends Scaling {
  scenario: string
  /** Requests per second over all apps. */
  ratePerSec: number
  durationMs: number
  seed: number
  arrivals: ArrivalName
  burstiness: number
  traces: Partial<Record<AppName, Trace>>
}

export function makePlan(options: WorkloadOptions): Plan {
  const shares = sharesOf(options.scenario)
  checkNumbers(options)
  const apps = Object.entries(shares) as [AppName, number][]
  const counts = apportion(
    Math.round((options.ratePerSec * options.durationMs) / 1000),
    apps.map(([, share]) => share),
  )
  const sources: Record<string, string> = {}
  const planned: Prefixed[] = []
  for (const [i, [app]] of apps.entries()) {
    const { source, entries } = appRequests(app, counts[i]!, options)
    sources[app] = source
    planned.push(...entries)
  }
  planned.sort((a, b) => a.request.atMs - b.request.atMs)
  shareWithin(planned)
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
    requests: planned.map(({ request }) => request),
  }
}

/** All requests of one app. One stream for times and one for lengths: at another rate the same seed draws the same
 * lengths. */
function appRequests(
  app: AppName,
  count: number,
  options: WorkloadOptions,
): { source: string; entries: Prefixed[] } {
  const { seed, scale, maxSequenceTokens } = options
  const drawer = drawerOf(app, options.traces[app], seed, options)
  const clock = followsTrace(options.arrivals) ? clockOf(app, drawer, count, options) : null
  const times = arrivals(clock === null && followsTrace(options.arrivals) ? "poisson" : options.arrivals, {
    count,
    spanMs: options.durationMs,
    burstiness: options.burstiness,
    trace: clock ?? undefined,
    random: new Random(seed, app, "arrivals"),
  })
  const random = new Random(seed, app, "lengths")
  const entries = times.map(({ atMs, index, copy }, n): Prefixed => {
    const asItWas = clock?.own && index !== undefined
    const drawn = asItWas ? drawer.at(index, copy!) : drawer.next(random)
    const rounds = fitted(
      drawn.rounds.map((round) => scaled(round, scale)),
      maxSequenceTokens,
    )
    const prefix = drawn.prefix && scaledPrefix(drawn.prefix, scale, rounds[0]!.promptTokens)
    const request: PlannedRequest = {
      atMs: Math.round(atMs * 1000) / 1000,
      app,
      session: drawn.rounds.length > 1 ? `${seed}-${app}-${n}` : null,
      rounds,
      ...(prefix && { prefix }),
    }
    return { request, space: `${app} ${drawn.copy}` }
  })
  const arrivalSource = clock === null ? "" : `; arrivals: ${options.arrivals}, ${clock.source}`
  return { source: drawer.source + arrivalSource, entries }
}

interface Clock extends TraceTimes {
  source: string
  /** The times are those of the drawer's own sessions. */
  own: boolean
}

/** Whose timestamps an app's arrivals follow (docs/design.md, Workloads): its own trace's; chat's for the synthetic
 * apps; generated bursts without a trace. Null: summaries, whose trace has no times, arrive by Poisson. */
function clockOf(app: AppName, drawer: Drawer, count: number, options: WorkloadOptions): Clock | null {
  const { traces, seed, arrivals } = options
  const timed = traces[isSynthetic(app) ? "chat" : app]
  if (timed?.rows[0]?.atMs !== undefined) {
    const name = timed.path
    const source = `times of ${name.split(/[\\/]/).at(-1)}`
    const { sessions } = drawer
    const linked = sessions?.some(({ rounds }) => rounds.length > 1) ?? false
    // Requests beyond the sequence limit are not sent, but their times count where only times are taken.
    return sessions !== null && (linked || arrivals === "raw")
      ? { name, source, times: sessions.map(({ atMs }) => atMs!), own: true }
      : { name, source, times: timed.rows.map(({ atMs }) => atMs!), own: false }
  }
  if (app === "summarize") return null
  const bursts = BURSTS[app === "code" ? "code" : "chat"]
  const times = burstTimes(bursts, new Random(seed, app, "bursts"), count + 1)
  return { name: bursts.source, source: bursts.source, times, own: false }
}

function checkNumbers(options: WorkloadOptions): void {
  const { ratePerSec, durationMs, scale, burstiness, seed, maxSequenceTokens } = options
  const positive = (value: number, name: string) => {
    if (!(value > 0) || !Number.isFinite(value))
      throw new UserError(`${name} must be a number above 0; it is ${value}`)
  }
  positive(ratePerSec, "--rate")
  positive(durationMs / 1000, "--duration")
  positive(scale, "--scale")
  positive(burstiness, "--burstiness")
  positive(maxSequenceTokens, "--max-sequence-tokens")
  if (!Number.isInteger(seed)) throw new UserError(`--seed must be a whole number; it is ${seed}`)
  const count = (ratePerSec * durationMs) / 1000
  if (ratePerSec > 10_000 || count > 1e6) {
    throw new UserError(
      `--rate ${ratePerSec} over ${durationMs / 1000} s is ${Math.round(count)} requests: more than one generator can send ` +
        "(at most 10000/s and a million requests)",
    )
  }
  if (Math.round(count) < 1) {
    throw new UserError(
      `--rate ${ratePerSec} over ${durationMs / 1000} s sends no request: raise the rate or --duration`,
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

function scaled(round: PlannedRound, scale: number): PlannedRound {
  const thinkingTokens = Math.round(round.thinkingTokens / scale)
  return {
    ...round,
    promptTokens: scaledTokens(round.promptTokens, scale),
    outputTokens: Math.max(
      thinkingTokens > 0 ? thinkingTokens + 1 : 1,
      scaledTokens(round.outputTokens, scale),
    ),
    thinkingTokens,
    delayMs: Math.round(round.delayMs / scale),
  }
}

/** Shortens what was drawn and does not fit the context: outputs down to a quarter of it, then prompts; a session ends
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
