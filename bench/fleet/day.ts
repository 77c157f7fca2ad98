/** A day of load that changes: chats and code completions, each with the bursts of published services (load/bursts.ts), by a
 * rate that goes from night to two peaks and back. A day of 24 hours lasts `DAY_S`. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { CostModel, CostPiece } from "../../src/core/cost.ts"
import { BURSTS } from "../../src/load/bursts.ts"
import { readClasses } from "../../src/load/classes.ts"
import { published } from "../../src/load/lengths.ts"
import { formatPlan, type PlannedRequest } from "../../src/load/plan.ts"
import { Random } from "../../src/random.ts"
import type { Arrival } from "../../src/scale/arrival.ts"
import { HARDWARE, type Hardware } from "../../src/sim/presets.ts"
import type { SimRequest } from "../../src/sim/world.ts"
import { RUN_DEFAULTS } from "../../src/study/spec.ts"
import { Workload } from "../../src/study/workload.ts"

export const DAY_S = 96 * 60
const PRESET = HARDWARE["opt-6.7b-a100"]!
/** A GPU of half that speed: more replicas for the same number of requests to simulate. */
const SLOWER = 2
export const hardware: Hardware = { ...PRESET, cost: slowed(PRESET.cost) }

function slowed({ pieces, ...cost }: CostModel): CostModel {
  const slower = (piece: CostPiece) =>
    Object.fromEntries(Object.entries(piece).map(([feature, us]) => [feature, us * SLOWER]))
  return { ...cost, pieces: pieces.map(slower) }
}

/** Requests/s of chats and of code together, by share of the day. */
export function rateAt(share: number): number {
  const peak = (at: number, width: number) => Math.exp(-(((share - at) / width) ** 2))
  return 1 + 7 * peak(0.42, 0.09) + 6 * peak(0.66, 0.12)
}

const SHARES = { chat: 0.6, code: 0.4 } as const
/** So many editors' fleets over each other: one alone is off half of the time. */
const FLEETS = { chat: 1, code: 16 } as const

const MOST_PROMPT = 6000
const MOST_OUTPUT = 2000

/** All of a day's requests, in order of time. */
export function dayOf(seed: number): Arrival[] {
  const requests = (["chat", "code"] as const).flatMap((app) => requestsOf(app, seed))
  requests.sort((a, b) => a.atMs - b.atMs)
  return withSlos(requests).map(arrivalOf)
}

function requestsOf(app: "chat" | "code", seed: number): PlannedRequest[] {
  const lengths = published(app)
  const random = new Random(seed, app, "lengths")
  return Array.from({ length: FLEETS[app] }, (_, fleet) => timesOf(app, seed, fleet)).flatMap((times) =>
    times.map((atMs): PlannedRequest => {
      const drawn = lengths.draw(random)
      const promptTokens = Math.min(MOST_PROMPT, Math.max(1, Math.round(drawn.promptTokens)))
      const outputTokens = Math.min(MOST_OUTPUT, Math.max(1, Math.round(drawn.outputTokens)))
      const round = { class: app, promptTokens, outputTokens, thinkingTokens: 0, delayMs: 0 }
      return { atMs, app, session: null, rounds: [round] }
    }),
  )
}

/** The process' own times, bent so that their rate follows the day's. */
function timesOf(app: "chat" | "code", seed: number, fleet: number): number[] {
  const times: number[] = []
  const share = SHARES[app] / FLEETS[app]
  const meanPerMs = MEAN_PER_SEC[app] / 1000
  let clockMs = 0
  let atMs = 0
  for (const next of BURSTS[app].times(new Random(seed, app, fleet, "day"))) {
    let left = next - clockMs
    clockMs = next
    // Time goes faster for the process where the day's rate is higher.
    while (left > 0) {
      const speed = (rateAt(atMs / 1000 / DAY_S) * share) / 1000 / meanPerMs
      const stepMs = Math.min(1000, left / speed)
      atMs += stepMs
      left -= stepMs * speed
    }
    if (atMs >= DAY_S * 1000) return times
    times.push(Math.round(atMs * 1000) / 1000)
  }
  return times
}

/** Of bursts.ts: chats have 5.62/s; code is on for 17.6 s in 61, and then has 8.4/s. */
const MEAN_PER_SEC = { chat: 5.62, code: 2.45 } as const

function withSlos(requests: PlannedRequest[]): SimRequest[] {
  const folder = mkdtempSync(join(tmpdir(), "day-"))
  const plan = join(folder, "plan.jsonl")
  const header = {
    ...{ plan: 1 as const, scenario: "day", seed: 0, ratePerSec: requests.length / DAY_S },
    ...{ durationMs: DAY_S * 1000, scale: 1, arrivals: "day", burstiness: null, sources: {} },
  }
  writeFileSync(plan, formatPlan({ header, requests }))
  try {
    return new Workload({
      ...RUN_DEFAULTS,
      ...{ scenario: "day", policy: "slos-serve", hardware, ratePerSec: 1, durationS: DAY_S, plan },
      ...{ classes: readClasses(undefined), maxSequenceTokens: hardware.contextTokens - 1 },
    }).first
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function arrivalOf({ atUs, spec, outputTokens }: SimRequest): Arrival {
  const { app, session, promptTokens, maxOutputTokens, slo, tier, thinking } = spec
  return {
    ...{ atUs, app, session, promptTokens, maxOutputTokens, outputTokens, slo, tier, thinking },
    ...{ thinkingTokens: 0, cachedTokens: 0, worth: 1, end: "done", endUs: 0, attained: false },
  }
}
