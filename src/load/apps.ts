/** The apps of the scenarios: what their requests look like, from a trace or by a generator (docs/design.md,
 * Workloads). */
import { UserError } from "../errors.ts"
import type { Random } from "../random.ts"
import { type PublishedName, published } from "./lengths.ts"
import type { PlannedRound } from "./plan.ts"
import { type Scaling, sessionsOf, type TraceSession } from "./sessions.ts"
import { sharedPrompts } from "./shared-prompts.ts"
import type { PromptPrefix, Trace } from "./trace.ts"

/** The scheduler knows apps by their place here. */
export const APPS = ["chat", "code", "summarize", "reasoning", "tools", "shared"] as const
export type AppName = (typeof APPS)[number]

export interface Drawn {
  rounds: PlannedRound[]
  prefix?: PromptPrefix
  /** Within which the prefix's ids are comparable. */
  copy: number
}

/** Makes an app's requests, unscaled. `source` says where they come from, for the report. */
export interface Drawer {
  source: string
  next(random: Random): Drawn
  /** The trace that it draws from, if any, so that raw arrivals can take entries as they are. */
  sessions: readonly TraceSession[] | null
  at(index: number, copy: number): Drawn
}

/** Apps of which there are no traces of lengths. Their arrivals may follow chat's. */
const SYNTHETIC: Readonly<Partial<Record<AppName, (seed: number) => Drawer>>> = {
  reasoning: () =>
    generator("synthetic (lognormal prompt, thinking and answer)", (random) => ({
      rounds: drawReasoning(random),
    })),
  tools: () =>
    generator("synthetic (2 to 5 rounds of tool calls)", (random) => ({ rounds: drawTools(random) })),
  shared: (seed) => {
    const { source, draw } = sharedPrompts(seed)
    return generator(source, draw)
  },
}

export const isSynthetic = (app: AppName): boolean => SYNTHETIC[app] !== undefined

export function drawerOf(app: AppName, trace: Trace | undefined, seed: number, scaling: Scaling): Drawer {
  const synthetic = SYNTHETIC[app]
  if (synthetic !== undefined) {
    if (trace === undefined) return synthetic(seed)
    throw new UserError(`${trace.path}: requests of ${app} are synthetic and take no trace; leave it out`)
  }
  if (trace !== undefined) return traceDrawer(app, trace, scaling)
  const lengths = published(app as PublishedName)
  return generator(lengths.source, (random) => ({
    rounds: [{ class: app, ...lengths.draw(random), thinkingTokens: 0, delayMs: 0 }],
  }))
}

function generator(source: string, draw: (random: Random) => Omit<Drawn, "copy">): Drawer {
  return {
    source,
    next: (random) => ({ ...draw(random), copy: 0 }),
    sessions: null,
    at: () => {
      throw new Error("a generator has no entries")
    },
  }
}

/** Requests by chance; in their own order, from a random place, where they share prefixes: requests that share are
 * near. */
function traceDrawer(app: AppName, trace: Trace, scaling: Scaling): Drawer {
  const sessions = sessionsOf(trace, scaling)
  const source = sourceOf(trace, sessions, scaling)
  const inOrder = sessions.some(({ prefix, rounds }) => prefix !== undefined || rounds.length > 1)
  const at = (index: number, copy: number): Drawn => {
    const { rounds, prefix } = sessions[index]!
    return {
      rounds: rounds.map(({ promptTokens, outputTokens, delayMs }) => ({
        class: app,
        promptTokens,
        outputTokens,
        thinkingTokens: 0,
        delayMs,
      })),
      ...(prefix !== undefined && { prefix }),
      copy,
    }
  }
  let place = -1
  return {
    source,
    sessions,
    at,
    next(random) {
      if (!inOrder) return at(random.integer(0, sessions.length), 0)
      place = place < 0 ? random.integer(0, sessions.length) : place + 1
      return at(place % sessions.length, Math.floor(place / sessions.length))
    },
  }
}

/** What is used of a trace, and what is not. */
function sourceOf(
  trace: Trace,
  sessions: readonly TraceSession[],
  { scale, maxSequenceTokens }: Scaling,
): string {
  const { rows, skipped, path } = trace
  const limit = `${maxSequenceTokens} tokens${scale === 1 ? "" : ` at scale ${scale}`}`
  if (sessions.length === 0) {
    const all = rows.length === 1 ? "its one request is" : `all of its ${rows.length} requests are`
    throw new UserError(
      `${path}: ${all} longer than ${limit}; raise --scale, or the longest sequence (--max-sequence-tokens, the context)`,
    )
  }
  const turns = sessions.reduce((sum, { rounds }) => sum + rounds.length, 0)
  const total = rows.length + skipped.empty + skipped.cut
  const left = [
    [rows.length - turns, `longer than ${limit}`],
    [skipped.empty, "without prompt or answer"],
    [skipped.cut, "cut off at the end of the file"],
  ] as const
  const notes = left.filter(([count]) => count > 0).map(([count, why]) => `${count} ${why}`)
  const leftOut = notes.length > 0 ? `; left out: ${notes.join(", ")}` : ""
  const joined = turns > sessions.length ? ` in ${sessions.length} sessions` : ""
  return `trace ${path.split(/[\\/]/).at(-1)} (${turns} of ${total} requests${joined}${leftOut})`
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
