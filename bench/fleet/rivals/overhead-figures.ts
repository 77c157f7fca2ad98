/** Figures of the overhead bench: of one measurement, and over all rounds. */
import Table from "cli-table3"
import { median, quantile } from "simple-statistics"
import type { Seen } from "./clients.ts"

export interface Figures {
  requests: number
  tokens: number
  failures: Seen["failures"]
  requestsPerSec: number
  /** To the first token. */
  firstMs: Quantiles
  /** Of each token; null where the engine writes no times. */
  delayMs: Quantiles | null
  gapMs: Quantiles
  /** Of all processes of the system. */
  cpuUs: number
}

export interface Quantiles {
  p50: number
  p99: number
}

export interface Round extends Figures {
  round: number
  system: string
  group: string
  /** Streams × tokens of an answer. */
  shape: string
}

export function figuresOf(seen: Seen, cpuUs: number): Figures {
  return {
    ...{ requests: seen.requests, tokens: seen.tokens, failures: seen.failures, cpuUs },
    requestsPerSec: seen.requests / (seen.elapsedUs / 1e6),
    firstMs: quantilesMs(seen.firstUs),
    delayMs: seen.delayUs.length === 0 ? null : quantilesMs(seen.delayUs),
    gapMs: quantilesMs(seen.gapUs),
  }
}

function quantilesMs(us: readonly number[]): Quantiles {
  if (us.length === 0) return { p50: Number.NaN, p99: Number.NaN }
  const [p50, p99] = quantile([...us], [0.5, 0.99]) as [number, number]
  return { p50: p50 / 1000, p99: p99 / 1000 }
}

const HEAD = [
  ...["system", "streams × tokens", "first token p50 ms", "p99", "added p50", "p99", "token p50 ms", "p99"],
  ...[
    "added p50",
    "p99",
    "req/s",
    "CPU µs a request",
    "a token",
    "req/s of a core",
    "tokens/s of a core",
    "failed",
  ],
]

/** Medians over rounds (with the least and the greatest where it matters); added: against the group's first system in the
 * same round. Of a token: its delay, or, where the engine writes no times, the gap before it. */
export function tableOf(rounds: readonly Round[]): string {
  const groups = [...Map.groupBy(rounds, ({ group }) => group)]
  return `${groups.map(([group, own]) => `${group}\n${tableOfGroup(own)}`).join("\n\n")}\n`
}

function tableOfGroup(rounds: readonly Round[]): string {
  const table = new Table({ head: HEAD, style: { head: [], border: [], compact: true } })
  const base = rounds[0]!.system
  for (const [shape, alike] of Map.groupBy(rounds, (round) => round.shape))
    for (const [system, own] of Map.groupBy(alike, (round) => round.system)) {
      const bases = own.map(({ round }) =>
        alike.find((other) => other.system === base && other.round === round),
      )
      const perRequestUs = perRequest(rounds.filter((round) => round.system === system))
      table.push([system, shape, ...rowOf(own, bases, perRequestUs)])
    }
  return table.toString()
}

/** CPU of an answer of one token. */
function perRequest(rounds: readonly Round[]): number {
  const short = rounds.filter(({ shape }) => shape.endsWith("×1"))
  return short.length === 0 ? Number.NaN : median(short.map(({ cpuUs, requests }) => cpuUs / requests))
}

function rowOf(own: readonly Round[], bases: readonly (Round | undefined)[], perRequestUs: number): string[] {
  const of = (pick: (round: Round) => number) => own.map(pick)
  const added = (pick: (round: Round) => number) =>
    own.flatMap((round, i) => (bases[i] === undefined ? [] : [pick(round) - pick(bases[i]!)]))
  const token = (round: Round) => round.delayMs ?? round.gapMs
  const short = own[0]!.shape.endsWith("×1")
  const perToken = own.map(
    ({ cpuUs, requests, tokens }) => (cpuUs - requests * perRequestUs) / (tokens - requests),
  )
  const failed = own.reduce(
    (sum, { failures }) => sum + Object.values(failures).reduce((a, b) => a + b, 0),
    0,
  )
  const isBase = bases.every((base, i) => base === own[i])
  return [
    ...[middle(of(({ firstMs }) => firstMs.p50)), middle(of(({ firstMs }) => firstMs.p99))],
    ...(isBase ? ["", ""] : [spread(added((r) => r.firstMs.p50)), spread(added((r) => r.firstMs.p99))]),
    ...[middle(of((round) => token(round).p50)), middle(of((round) => token(round).p99))],
    ...(isBase ? ["", ""] : [spread(added((r) => token(r).p50)), spread(added((r) => token(r).p99))]),
    spread(of(({ requestsPerSec }) => requestsPerSec)),
    short ? spread(of(({ cpuUs, requests }) => cpuUs / requests)) : "",
    short ? "" : spread(perToken),
    short ? middle(of(({ cpuUs, requests }) => (1e6 * requests) / cpuUs)) : "",
    short ? "" : middle(perToken.map((us) => 1e6 / us)),
    failed === 0 ? "" : String(failed),
  ]
}

function middle(values: readonly number[]): string {
  const known = values.filter((value) => Number.isFinite(value))
  return known.length === 0 ? "" : short(median(known))
}

function spread(values: readonly number[]): string {
  const known = values.filter((value) => Number.isFinite(value))
  if (known.length < 2) return middle(known)
  return `${short(median(known))} (${short(Math.min(...known))}–${short(Math.max(...known))})`
}

const short = (value: number) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(2))
