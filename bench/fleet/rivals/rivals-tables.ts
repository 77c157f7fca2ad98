/** Tables of the rivals' bench: attainment by rate, in pairs, and capacity. */
import Table from "cli-table3"
import { mean, sampleStandardDeviation } from "simple-statistics"
import type { RoundRecord } from "../../../src/load/replay.ts"
import type { Score } from "../../../src/load/score.ts"
import type { Share } from "../../../src/load/statistics.ts"
import { analyse, type Interval } from "../../real/statistics.ts"

/** One run. */
export interface Row extends Share, Pick<Score, "ends" | "failures" | "ttftMs" | "maxGapMs" | "problems"> {
  system: string
  seed: number
  ratePerSec: number
  byApp: Record<string, Share>
  loadAverage: number
  /** Left out in runs of before. */
  missed?: Missed[]
}

/** A round that was not in time, and by what. */
export interface Missed extends Pick<RoundRecord, "class" | "promptTokens" | "outputTokens"> {
  atMs: number
  /** To its first token; null: it had none. */
  ttftMs: number | null
  /** The first stage that was late, or not over in the end; by how much its latest token was, null where none came. */
  stage: string
  lateMs: number | null
}

/** Rounds that were never sent are those of sessions that had missed before. */
export function missedOf(records: readonly RoundRecord[]): Missed[] {
  return records
    .filter(({ attained, end }) => !attained && end !== "notSent")
    .map((record) => {
      const { class: name, promptTokens, outputTokens, scheduledMs, tokenTimesMs, stages } = record
      const late = stages.find(({ attained }) => !attained)
      return {
        ...{ class: name, promptTokens, outputTokens, atMs: scheduledMs, ttftMs: tokenTimesMs[0] ?? null },
        ...{ stage: late?.stage ?? "end", lateMs: late?.worstLateMs ?? null },
      }
    })
}

/** Runs with a problem that makes them invalid are left out, and counted. */
export function tablesOf(rows: readonly Row[]): string {
  const valid = rows.filter(({ problems }) => !problems.some((problem) => problem.startsWith("invalid")))
  const left = rows.length - valid.length
  return [
    ...["Requests in time, %, all windows of a rate", attainment(valid)],
    ...[
      "Rounds that were late, by the first stage that was (the first token by less than 100 ms)",
      misses(valid),
    ],
    ...["Capacity at 90%, requests/s (95%, windows resampled)", capacity(valid)],
    ...["Ahead of …, points, on the same arrivals (standard error)", pairs(valid)],
    ...(left === 0 ? [] : [`${left} of ${rows.length} runs left out: the generator was late`]),
    "",
  ].join("\n")
}

const tableOf = (head: string[]) => new Table({ head, style: { head: [], border: [], compact: true } })

function attainment(rows: readonly Row[]): string {
  const rates = [...new Set(rows.map(({ ratePerSec }) => ratePerSec))].sort((a, b) => a - b)
  const table = tableOf(["", ...rates.map((rate) => `${rate}/s`), "windows", "refused", "failed"])
  for (const [system, own] of Map.groupBy(rows, (row) => row.system)) {
    const cells = rates.map((rate) => {
      const at = own.filter(({ ratePerSec }) => ratePerSec === rate)
      const sum = (of: (row: Row) => number) => at.reduce((total, row) => total + of(row), 0)
      return at.length === 0 ? "" : ((100 * sum((row) => row.attained)) / sum((row) => row.total)).toFixed(1)
    })
    const ended = (how: string) => String(own.reduce((total, row) => total + (row.ends[how] ?? 0), 0))
    const failed = ["error", "disconnected", "timeout"].reduce((total, how) => total + Number(ended(how)), 0)
    const windows = new Set(own.map(({ seed }) => seed)).size
    table.push([system, ...cells, String(windows), ended("rejected"), String(failed)])
  }
  return table.toString()
}

function misses(rows: readonly Row[]): string {
  const told = rows.filter(({ missed }) => missed !== undefined)
  const stages = [...new Set(told.flatMap(({ missed = [] }) => missed.map(({ stage }) => stage)))]
  const table = tableOf(["", "requests/s", ...stages])
  for (const [key, own] of Map.groupBy(told, ({ system, ratePerSec }) => `${system}\n${ratePerSec}`)) {
    const all = own.flatMap(({ missed = [] }) => missed)
    const cells = stages.map((stage) => {
      const there = all.filter((one) => one.stage === stage)
      const close = there.filter(({ lateMs }) => lateMs !== null && lateMs < CLOSE_MS).length
      return stage === "prefill" ? `${there.length} (${close})` : String(there.length)
    })
    table.push([...key.split("\n"), ...cells])
  }
  return table.toString()
}
const CLOSE_MS = 100

function capacity(rows: readonly Row[]): string {
  const { capacities, ratio } = analyse(rows)
  const table = tableOf([
    "",
    "requests/s",
    "slos-serve is … times this",
    "slos-serve --replicas 2 is … times this",
  ])
  const shown = ({ value, low, high }: Interval) =>
    `${value.toFixed(2)} (${low.toFixed(2)}–${high.toFixed(2)})`
  const has = (name: string) => capacities.some(({ system }) => system === name)
  const against = (ours: string, system: string) =>
    has(ours) && ours !== system ? shown(ratio(ours, system)) : ""
  const bounds = { exact: "", atLeast: "≥ ", atMost: "≤ " }
  for (const { system, bound, ...interval } of capacities)
    table.push([
      ...[system, bounds[bound] + shown(interval), against("slos-serve", system)],
      against("slos-serve --replicas 2", system),
    ])
  return table.toString()
}

function pairs(rows: readonly Row[]): string {
  const systems = [...new Set(rows.map(({ system }) => system))]
  const table = tableOf(["", ...systems])
  for (const one of systems) table.push([one, ...systems.map((other) => ahead(rows, one, other))])
  return table.toString()
}

function ahead(rows: readonly Row[], one: string, other: string): string {
  if (one === other) return ""
  const share = ({ attained, total }: Share) => (100 * attained) / total
  const differences = rows
    .filter(({ system }) => system === one)
    .flatMap((row) => {
      const pair = rows.find(
        ({ system, seed, ratePerSec }) =>
          system === other && seed === row.seed && ratePerSec === row.ratePerSec,
      )
      return pair === undefined ? [] : [share(row) - share(pair)]
    })
  if (differences.length === 0) return ""
  const error =
    differences.length < 2
      ? ""
      : ` (${(sampleStandardDeviation(differences) / Math.sqrt(differences.length)).toFixed(1)})`
  return `${mean(differences).toFixed(1)}${error}`
}
