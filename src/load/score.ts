/** What a replay amounts to: attainment per app, stage and size, latency quantiles, goodput. The unit of
 * attainment is the request; all rounds of a session are one request. */
import { quantileSorted } from "simple-statistics"
import type { PlanHeader } from "./plan.ts"
import type { ReplayResult, RoundRecord } from "./replay.ts"
import { type Quantiles, quantiles, type Share, tenths } from "./statistics.ts"

export interface AppScore {
  requests: Share
  every10: Share
  /** By SLO class and stage, e.g. "reasoning thinking". Counts rounds. */
  stages: Record<string, Share>
  ttftMs: Quantiles | null
  tpotMs: Quantiles | null
  maxGapMs: Quantiles | null
}

export interface Score {
  requests: Share
  every10: Share
  apps: Record<string, AppScore>
  /** By total tokens of the request, smallest tenth first. */
  sizeDeciles: (Share & { fromTokens: number; toTokens: number })[]
  ttftMs: Quantiles | null
  tpotMs: Quantiles | null
  itlMs: Quantiles | null
  /** Of each round, its longest time between two tokens. */
  maxGapMs: Quantiles | null
  e2elMs: Quantiles | null
  /** Rounds by how they ended. */
  ends: Record<string, number>
  /** First message of every kind of failure. */
  failures: Record<string, string>
  inputTokens: number
  outputTokens: number
  elapsedMs: number
  /** Requests that attained, per second of arrivals. */
  goodputPerSec: number
  /** Rounds per second that also met the --goodput limits; null without limits. */
  limitedGoodputPerSec: number | null
  sendLagMs: { p50: number; p99: number; max: number }
  /** Why the figures cannot be trusted; empty when they can. */
  problems: string[]
}

/** vLLM's `--goodput`: a round is good when it stays within every limit (mean TPOT, not per token). */
export interface GoodputLimits {
  ttft?: number
  tpot?: number
  e2el?: number
}

/** A generator that sends later than this (p99) measures itself. */
export const MAX_SEND_LAG_MS = 50

export function score(header: PlanHeader, result: ReplayResult, limits?: GoodputLimits): Score {
  const { records, sendLagsMs } = result
  const requests = groupBy(records, (record) => record.request)
  const units = [...requests.values()].map(unitOf)
  const lags = [...sendLagsMs].sort((a, b) => a - b)
  const lag = (level: number) => (lags.length === 0 ? 0 : quantileSorted(lags, level))
  const sendLagMs = { p50: lag(0.5), p99: lag(0.99), max: lags.at(-1) ?? 0 }
  const attained = shareOf(units, (unit) => unit.attained)
  const apps: Record<string, AppScore> = {}
  for (const [app, rounds] of groupBy(records, (record) => record.app)) {
    const own = units.filter((unit) => unit.app === app)
    apps[app] = {
      requests: shareOf(own, (unit) => unit.attained),
      every10: shareOf(own, (unit) => unit.attainedEvery10),
      stages: stageShares(rounds),
      ttftMs: quantiles(ttfts(rounds)),
      tpotMs: quantiles(tpots(rounds)),
      maxGapMs: quantiles(longestGaps(rounds)),
    }
  }
  const failures: Record<string, string> = {}
  for (const { end, message } of records) if (end !== "ok" && message !== "") failures[end] ??= message
  return {
    requests: attained,
    every10: shareOf(units, (unit) => unit.attainedEvery10),
    apps,
    sizeDeciles: sizeDeciles(units),
    ttftMs: quantiles(ttfts(records)),
    tpotMs: quantiles(tpots(records)),
    itlMs: quantiles(records.flatMap((record) => gaps(record.tokenTimesMs))),
    maxGapMs: quantiles(longestGaps(records)),
    e2elMs: quantiles(records.filter((r) => r.end === "ok").map((r) => r.endMs - r.scheduledMs)),
    ends: countBy(records, (record) => record.end),
    failures,
    inputTokens: sum(records.filter((r) => r.end === "ok").map((r) => r.promptTokens)),
    outputTokens: sum(records.map((r) => r.tokenTimesMs.length)),
    elapsedMs: result.elapsedMs,
    goodputPerSec: (attained.attained / header.durationMs) * 1000,
    limitedGoodputPerSec:
      limits === undefined
        ? null
        : (records.filter((r) => within(r, limits)).length / result.elapsedMs) * 1000,
    sendLagMs,
    problems: problemsOf(result, sendLagMs.p99),
  }
}

interface Unit {
  app: string
  tokens: number
  attained: boolean
  attainedEvery10: boolean
}

function unitOf(rounds: RoundRecord[]): Unit {
  return {
    app: rounds[0]!.app,
    tokens: Math.max(...rounds.map((round) => round.promptTokens + round.outputTokens)),
    attained: rounds.every((round) => round.attained),
    attainedEvery10: rounds.every((round) => round.attainedEvery10),
  }
}

function problemsOf({ records, neverBegun, interrupted }: ReplayResult, lagP99Ms: number): string[] {
  const problems: string[] = []
  if (interrupted)
    problems.push(
      `invalid: interrupted, ${neverBegun} requests of the plan were never sent; run it to its end`,
    )
  if (lagP99Ms > MAX_SEND_LAG_MS) {
    problems.push(
      `invalid: the generator sent ${lagP99Ms.toFixed(0)} ms late (p99, limit ${MAX_SEND_LAG_MS}); ` +
        "give it a core of its own or lower the rate",
    )
  }
  const ended = records.filter((record) => record.end === "ok")
  const short = ended.filter((record) => record.tokenTimesMs.length !== record.outputTokens).length
  if (short > 0) problems.push(`${short} answers have another length than was planned`)
  const untimed = sum(ended.map((record) => record.untimedTokens))
  if (untimed > 0) {
    problems.push(`${untimed} tokens were known only from the closing usage: they count as arriving last`)
  }
  const wrong = ended.filter((r) => r.usageTokens !== null && r.usageTokens !== r.tokenTimesMs.length).length
  if (wrong > 0) problems.push(`${wrong} answers had more chunks than the server's usage has tokens`)
  return problems
}

function within(record: RoundRecord, limits: GoodputLimits): boolean {
  if (record.end !== "ok") return false
  const ok = (values: number[], limit: number | undefined) => limit === undefined || (values[0] ?? 0) <= limit
  return (
    ok(ttfts([record]), limits.ttft) &&
    ok(tpots([record]), limits.tpot) &&
    ok([record.endMs - record.scheduledMs], limits.e2el)
  )
}

function stageShares(rounds: RoundRecord[]): Record<string, Share> {
  const shares: Record<string, Share> = {}
  for (const round of rounds) {
    for (const { stage, attained } of round.stages) {
      const share = (shares[`${round.class} ${stage}`] ??= { attained: 0, total: 0 })
      share.total++
      if (attained) share.attained++
    }
  }
  return shares
}

function sizeDeciles(units: Unit[]): Score["sizeDeciles"] {
  return tenths(units)
    .filter((part) => part.length > 0)
    .map((part) => ({
      ...shareOf(part, (unit) => unit.attained),
      fromTokens: part[0]!.tokens,
      toTokens: part.at(-1)!.tokens,
    }))
}

function ttfts(records: readonly RoundRecord[]): number[] {
  return records.filter((r) => r.tokenTimesMs.length > 0).map((r) => r.tokenTimesMs[0]!)
}

/** Mean time per output token after the first, one value a round. */
function tpots(records: readonly RoundRecord[]): number[] {
  return records
    .filter((r) => r.tokenTimesMs.length > 1)
    .map((r) => (r.tokenTimesMs.at(-1)! - r.tokenTimesMs[0]!) / (r.tokenTimesMs.length - 1))
}

function longestGaps(records: readonly RoundRecord[]): number[] {
  return records.map((record) => longestGap(record.tokenTimesMs)).filter((gap) => gap !== null)
}

/** Longest time between two tokens; null with fewer than two. */
export function longestGap(times: readonly number[]): number | null {
  return times.length < 2 ? null : gaps(times).reduce((longest, gap) => Math.max(longest, gap))
}

function gaps(times: readonly number[]): number[] {
  return times.slice(1).map((time, i) => time - times[i]!)
}

function shareOf<T>(items: readonly T[], good: (item: T) => boolean): Share {
  return { attained: items.filter(good).length, total: items.length }
}

function groupBy<T, K>(items: readonly T[], key: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>()
  for (const item of items) {
    const group = groups.get(key(item))
    if (group === undefined) groups.set(key(item), [item])
    else group.push(item)
  }
  return groups
}

function countBy<T>(items: readonly T[], key: (item: T) => string): Record<string, number> {
  return Object.fromEntries([...groupBy(items, key)].map(([name, group]) => [name, group.length]))
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0)
}
