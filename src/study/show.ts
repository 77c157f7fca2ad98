/** A run for people: tables and sparklines for the terminal. */
import Table from "cli-table3"
import type { Quantiles, Share } from "../load/statistics.ts"
import type { RunReport } from "./run.ts"
import type { RunSpec } from "./spec.ts"
import { type Slice, share } from "./tally.ts"

const BARS = "▁▂▃▄▅▆▇█"

export const percent = (value: number, digits = 1): string => `${(100 * value).toFixed(digits)}%`

/** Of nothing there is no share. */
const percentOf = (s: Share, digits: number): string => (s.total === 0 ? "–" : percent(share(s), digits))

/** One character a value, 0 … `most`. */
function sparkline(values: readonly number[], most = Math.max(...values, 1e-9)): string {
  return values
    .map((v) => (Number.isNaN(v) ? " " : BARS[Math.min(7, Math.max(0, Math.round((v / most) * 7)))]))
    .join("")
}

const table = (head: string[]) =>
  new Table({
    head,
    style: { head: [], border: [] },
    colAligns: head.map((_, i) => (i === 0 ? "left" : "right")),
  })

export function describeRun(spec: RunSpec, report: RunReport): string {
  const { attainment, attainmentEvery10 } = report
  const shares = table(["", "kept", "of", "attainment"])
  const row = (name: string, s: Share) => shares.push([name, s.attained, s.total, percentOf(s, 1)])
  row("all requests", attainment)
  row("  checked every 10 tokens", attainmentEvery10)
  for (const [name, s] of Object.entries(report.byClass)) row(name, s)
  for (const [name, s] of Object.entries(report.byStage)) row(`  stage ${name}`, s)
  const sizes = table(["size decile, up to tokens", ...report.bySizeDecile.map(({ upTo }) => String(upTo))])
  sizes.push(["attainment", ...report.bySizeDecile.map((s) => percentOf(s, 0))])
  const { revoked, demoted, promoted, preempted, rejected } = report
  return [
    `${spec.scenario} at ${spec.ratePerSec}/s for ${spec.durationS.toFixed(0)} s ` +
      `(${spec.plan === undefined ? `${spec.arrivals} arrivals` : `plan ${spec.plan}`}, seed ${spec.seed}) on ` +
      `${spec.replicas} × ${spec.hardware.source}`,
    `policy ${spec.policy}, ${spec.speculate ? `speculation at acceptance ${spec.acceptance}` : "no speculation"}, noise ${percent(spec.noiseSigma, 0)}${spec.learnCost ? ", step times learnt from a guess on" : ""}${spec.depth === undefined ? "" : `, ${spec.depth} batches in flight`}`,
    ...Object.entries(report.sources).map(([app, source]) => `${app}: ${source}`),
    shares.toString(),
    sizes.toString(),
    timesTable(report).toString(),
    goodputText(report),
    `utilization ${report.utilization.map((u) => percent(u, 0)).join(" ")}   steps ${report.steps}   batch tokens ${report.batchTokens}`,
    `demoted ${demoted} (revoked ${revoked})   promoted ${promoted}   preempted ${preempted}   rejected ${rejected}`,
    ...causesText(report.causes),
    ...timelineText(report.timeline),
  ].join("\n")
}

function timesTable(report: RunReport) {
  const times = table(["ms", "p50", "p90", "p99", "of"])
  const row = (name: string, q: Quantiles | null, unit: string) =>
    times.push([
      name,
      ...(q === null ? ["–", "–", "–"] : [q.p50, q.p90, q.p99].map((v) => v.toFixed(1))),
      `${q?.count ?? 0} ${unit}`,
    ])
  row("TTFT", report.ttftMs, "rounds")
  row("TTFT of requests that missed", report.missedTtftMs, "requests")
  row("mean TPOT", report.tpotMs, "rounds")
  row("longest pause between tokens", report.longestPauseMs, "requests")
  row("best-effort, arrival to end", report.bestEffortMs, "rounds")
  return times
}

/** Why rounds missed. */
function causesText(causes: RunReport["causes"]): string[] {
  const all = Object.entries(causes).map(([code, count]) => `${code.replaceAll("_", " ")} ${count}`)
  return all.length === 0 ? [] : [`missed for: ${all.join("   ")}`]
}

function goodputText({ goodput, missedWorkShare }: RunReport): string {
  const { requestsPerSec, promptTokensPerSec, outputTokensPerSec } = goodput
  return (
    `kept per second: ${requestsPerSec.toPrecision(3)} requests, ${promptTokensPerSec.toFixed(0)} prompt tokens, ` +
    `${outputTokensPerSec.toFixed(0)} output tokens   work spent on requests that missed ${percent(missedWorkShare)}`
  )
}

function timelineText(slices: readonly Slice[]): string[] {
  if (slices.length === 0) return []
  const live = Math.max(1, ...slices.map((s) => s.live))
  const line = (name: string, values: number[], most: number, end: string) =>
    `${name.padEnd(24)}${sparkline(values, most)} ${end}`
  return [
    line(
      "attainment by arrival",
      slices.map((s) => (s.total === 0 ? Number.NaN : s.kept / s.total)),
      1,
      "of 100%",
    ),
    line(
      "requests in the system",
      slices.map((s) => s.live),
      live,
      `at most ${live}`,
    ),
    line(
      "KV in use",
      slices.map((s) => s.kv),
      1,
      `at most ${percent(Math.max(...slices.map((s) => s.kv)), 0)}`,
    ),
    `${"".padEnd(24)}0 … ${slices.at(-1)!.atS.toFixed(0)} s`,
  ]
}
