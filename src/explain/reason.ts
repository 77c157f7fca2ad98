/** Why an answer missed its SLO, for programs and in a sentence. */
import type { Account, DemoteBound, Miss, MissCause, Outcome, TimePart } from "../core/protocol.ts"
import { TIME_PARTS } from "../core/time-account.ts"
import { saidMs } from "./units.ts"

/** Names of the parts in JSON, without their unit. */
export const PART_NAMES = {
  before: "before",
  queue: "queue",
  prefill: "prefill",
  decode: "decode",
  others: "others",
  recompute: "recompute",
  refusedDrafts: "refused_drafts",
  slow: "slow_engine",
  failed: "failed_steps",
  server: "server",
  engine: "engine",
} as const satisfies Record<TimePart, string>

type PartName = (typeof PART_NAMES)[TimePart]

/** `elsewhere`: on a replica that it has left. `unknown`: its replica does not say. */
export type ReasonCode = "turned_down" | "revoked" | "own_work" | "elsewhere" | "unknown" | PartName

export interface Reason {
  code: ReasonCode
  bound: DemoteBound | null
  text: string
}

const OBJECTIVES = { ttft: "TTFT", tpot: "TPOT", maxGap: "longest gap" } as const

const BOUNDS: Readonly<Record<DemoteBound, string>> = {
  time: "for lack of time: with it, what was to be kept would have been late",
  memory: "for lack of KV memory: with it, what was to be kept would not have fitted",
  alone: "because it could not be on time even with the engine to itself",
  plan: "because the best plan for all that had come left it out",
  turn: "because it was another tenant's turn: late requests of one that was served far less came first",
}

/** null where all was kept, or nothing was asked for. */
export function reasonOf({ tier, attained, account }: Outcome): Reason | null {
  if (tier === "bestEffort" || attained) return null
  if (account === undefined)
    return { code: "unknown", bound: null, text: "its replica does not say where the time went" }
  const { miss } = account
  if (miss === null) {
    const text = "a token was late on a replica that it has left, or it ended before its time"
    return { code: "elsewhere", bound: null, text }
  }
  return { code: codeOf(miss.cause), bound: miss.bound, text: sentenceOf(miss) }
}

function codeOf(cause: MissCause): ReasonCode {
  if (cause === "turnedDown") return "turned_down"
  return cause === "revoked" ? "revoked" : cause === "own" ? "own_work" : PART_NAMES[cause]
}

function sentenceOf(miss: Miss): string {
  const { token, objective, lateUs } = miss
  const which = token === 1 ? "the first token" : `token ${token}`
  const late = `${which} was ${saidMs(lateUs)} ms late by its ${OBJECTIVES[objective]}`
  return `${late}: ${whyOf(miss)}`
}

function whyOf({ cause, bound, parts, objective }: Miss): string {
  if (cause === "turnedDown") return `it was turned down ${BOUNDS[bound ?? "time"]}`
  if (cause === "revoked")
    return "its promise gave way to others that were worth more, or to another tenant's share"
  const whole = parts.reduce((sum, us) => sum + us, 0)
  const since = { ttft: "since its arrival", tpot: "since its first token", maxGap: "since the last token" }
  const of = (us: number) => `${saidMs(us)} of the ${saidMs(whole)} ms ${since[objective]}`
  const [prefill, decode] = [TIME_PARTS.indexOf("prefill"), TIME_PARTS.indexOf("decode")]
  if (cause === "own")
    return `its own work took ${of(parts[prefill]! + parts[decode]!)}, more than anything else: the objective is out of reach`
  return `${BLAME[cause]} took ${of(parts[TIME_PARTS.indexOf(cause)]!)}`
}

const BLAME: Readonly<Record<Exclude<MissCause, "turnedDown" | "revoked" | "own">, string>> = {
  before: "what came before it could run (reading it, compiling its grammar, a gateway, another replica)",
  queue: "waiting for its first batch",
  others: "the work of others",
  recompute: "computing anew what had lost its KV to others",
  refusedDrafts: "drafts that were refused",
  slow: "steps that took longer than predicted",
  failed: "failed steps",
  server: "the server itself, between the engine's steps,",
  engine: "the engine, which does not say what it did,",
}

/** Share of the load before it with which it would have been on time, all else alike; null: load alone was not the cause. */
export function loadThatKeeps({ parts, lateUs }: Miss): number | null {
  const waitedUs = (["queue", "others", "recompute"] as const).reduce(
    (sum, part) => sum + parts[TIME_PARTS.indexOf(part)]!,
    0,
  )
  return lateUs < waitedUs ? 1 - lateUs / waitedUs : null
}

/** What would have kept it; 0 and null: that does not matter. */
export function remedyOf(account: Account): { needs: Account["needs"]; load: number | null } | null {
  const { miss, needs } = account
  return miss === null ? null : { needs, load: loadThatKeeps(miss) }
}
