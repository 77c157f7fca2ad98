/** The apps of the scenarios: what their requests look like, from a trace or by a generator (DESIGN §7). */
import type { Random } from "../random.ts"
import { type PublishedName, published } from "./lengths.ts"
import type { PlannedRound } from "./plan.ts"
import { SEQUENCE_LIMIT_TOKENS, sessionsOf, type TraceSession } from "./sessions.ts"
import type { PromptPrefix, Trace } from "./trace.ts"

export const APPS = ["chat", "code", "summarize", "reasoning", "tools"] as const
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

export function drawerOf(app: AppName, trace: Trace | undefined): Drawer {
  if (app === "reasoning")
    return generator("synthetic (lognormal prompt, thinking and answer)", drawReasoning)
  if (app === "tools") return generator("synthetic (2 to 5 rounds of tool calls)", drawTools)
  if (trace !== undefined) return traceDrawer(app, trace)
  const lengths = published(app satisfies PublishedName)
  return generator(lengths.source, (random) => [
    { class: app, ...lengths.draw(random), thinkingTokens: 0, delayMs: 0 },
  ])
}

function generator(source: string, draw: (random: Random) => PlannedRound[]): Drawer {
  return {
    source,
    next: (random) => ({ rounds: draw(random), copy: 0 }),
    sessions: null,
    at: () => {
      throw new Error("a generator has no entries")
    },
  }
}

/** Requests by chance; in their own order, from a random place, where they share prefixes: those who share are near. */
function traceDrawer(app: AppName, trace: Trace): Drawer {
  const sessions = sessionsOf(trace)
  const inOrder = sessions.some(({ prefix, rounds }) => prefix !== undefined || rounds.length > 1)
  const file = trace.path.split(/[\\/]/).at(-1)
  const turns = sessions.reduce((sum, { rounds }) => sum + rounds.length, 0)
  const sessionNote = turns > sessions.length ? `, ${sessions.length} sessions` : ""
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
    source: `trace ${file} (${turns} of ${trace.rows.length} requests${sessionNote}, those within ${SEQUENCE_LIMIT_TOKENS} tokens)`,
    sessions,
    at,
    next(random) {
      if (!inOrder) return at(random.integer(0, sessions.length), 0)
      place = place < 0 ? random.integer(0, sessions.length) : place + 1
      return at(place % sessions.length, Math.floor(place / sessions.length))
    },
  }
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
