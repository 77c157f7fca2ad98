/** A replay's results for people (tables), for other tools (the keys of `vllm bench serve`), and one JSON line
 * a round. */
import Table from "cli-table3"
import pc from "picocolors"
import type { Target } from "./client.ts"
import type { PlanHeader } from "./plan.ts"
import type { RoundRecord } from "./replay.ts"
import { longestGap, type Score } from "./score.ts"
import type { Quantiles, Share } from "./statistics.ts"

export function formatScore(header: PlanHeader, score: Score): string {
  const parts = [
    `${header.scenario} at ${header.ratePerSec} requests/s over ${header.durationMs / 1000} s ` +
      `(${header.arrivals}${header.burstiness === null ? "" : `, burstiness ${header.burstiness}`}, seed ${header.seed}, ` +
      `lengths divided by ${header.scale})`,
    ...Object.entries(header.sources).map(([app, source]) => pc.dim(`  ${app}: ${source}`)),
    attainmentTable(score),
    stageTable(score),
    latencyTable(score),
    `Size deciles, smallest first: ${score.sizeDeciles.map((decile) => percent(decile)).join("  ")}`,
    `Goodput ${score.goodputPerSec.toFixed(2)} requests/s in time; ` +
      (score.limitedGoodputPerSec === null
        ? ""
        : `${score.limitedGoodputPerSec.toFixed(2)}/s within --goodput; `) +
      `${((score.outputTokens / score.elapsedMs) * 1000).toFixed(0)} output tokens/s`,
    `Rounds: ${Object.entries(score.ends)
      .map(([end, count]) => `${count} ${end}`)
      .join(", ")}; sent late by ${score.sendLagMs.p99.toFixed(1)} ms (p99)`,
    ...Object.entries(score.failures).map(([end, message]) => pc.yellow(`  ${end}: ${message}`)),
    ...score.problems.map((problem) => pc.red(problem)),
  ]
  return parts.join("\n")
}

function attainmentTable(score: Score): string {
  const table = new Table({
    head: ["app", "requests", "all in time", "every 10th", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99"],
    style: { head: [], border: [] },
  })
  for (const [app, own] of Object.entries(score.apps)) {
    table.push([
      app,
      own.requests.total,
      percent(own.requests),
      percent(own.every10),
      ms(own.ttftMs?.p50),
      ms(own.ttftMs?.p99),
      ms(own.tpotMs?.p50),
      ms(own.tpotMs?.p99),
    ])
  }
  const all = [score.requests.total, percent(score.requests), percent(score.every10)]
  const { ttftMs, tpotMs } = score
  table.push(["all", ...all, ms(ttftMs?.p50), ms(ttftMs?.p99), ms(tpotMs?.p50), ms(tpotMs?.p99)].map(bold))
  return table.toString()
}

function bold(value: string | number): string {
  return pc.bold(String(value))
}

function stageTable(score: Score): string {
  const table = new Table({ head: ["class and stage", "rounds", "in time"], style: { head: [], border: [] } })
  for (const { stages } of Object.values(score.apps)) {
    for (const [stage, share] of Object.entries(stages)) table.push([stage, share.total, percent(share)])
  }
  return table.toString()
}

/** With counts: a round that was given up or turned away is only in what it got to, however long it waited. */
function latencyTable(score: Score): string {
  const table = new Table({
    head: ["", "mean", "p50", "p90", "p95", "p99", "count"],
    style: { head: [], border: [] },
  })
  const row = (name: string, q: Quantiles | null) => {
    table.push([name, ms(q?.mean), ms(q?.p50), ms(q?.p90), ms(q?.p95), ms(q?.p99), q?.count ?? 0])
  }
  row("TTFT", score.ttftMs)
  row("TPOT", score.tpotMs)
  row("between tokens", score.itlMs)
  row("longest gap", score.maxGapMs)
  row("whole answer", score.e2elMs)
  return table.toString()
}

function percent(share: Share): string {
  return share.total === 0 ? "–" : `${((100 * share.attained) / share.total).toFixed(1)}%`
}

function ms(value: number | undefined): string {
  return value === undefined ? "–" : `${value.toFixed(value < 10 ? 1 : 0)} ms`
}

/** The keys of `vllm bench serve --save-result`, then ours. */
export function summaryJson(
  header: PlanHeader,
  score: Score,
  target: Target,
  maxConcurrency: number | undefined,
): Record<string, unknown> {
  const perSec = (count: number) => (count / score.elapsedMs) * 1000
  const completed = score.ends.ok ?? 0
  const summary: Record<string, unknown> = {
    date: new Date().toISOString(),
    backend: target.kind,
    model_id: target.model,
    num_prompts: score.requests.total,
    request_rate: header.ratePerSec,
    burstiness: header.burstiness,
    max_concurrency: maxConcurrency ?? null,
    duration: score.elapsedMs / 1000,
    completed,
    failed: Object.values(score.ends).reduce((a, b) => a + b, 0) - completed,
    total_input_tokens: score.inputTokens,
    total_output_tokens: score.outputTokens,
    request_throughput: perSec(completed),
    request_goodput: score.limitedGoodputPerSec ?? score.goodputPerSec,
    output_throughput: perSec(score.outputTokens),
    total_token_throughput: perSec(score.inputTokens + score.outputTokens),
  }
  for (const [name, q] of [
    ["ttft", score.ttftMs],
    ["tpot", score.tpotMs],
    ["itl", score.itlMs],
    ["max_gap", score.maxGapMs],
    ["e2el", score.e2elMs],
  ] as const) {
    summary[`mean_${name}_ms`] = q?.mean ?? null
    summary[`median_${name}_ms`] = q?.p50 ?? null
    summary[`std_${name}_ms`] = q?.std ?? null
    for (const level of ["p90", "p95", "p99"] as const) summary[`${level}_${name}_ms`] = q?.[level] ?? null
  }
  return { ...summary, plan: header, slo: score }
}

/** One JSON line a round; token times as ms since the scheduled send. */
export function formatRecords(records: readonly RoundRecord[], options: { tokenTimes: boolean }): string {
  const round3 = (value: number) => Math.round(value * 1000) / 1000
  return records
    .map(({ tokenTimesMs, ...record }) => {
      const line: Record<string, unknown> = {
        ...record,
        tokens: tokenTimesMs.length,
        ttftMs: tokenTimesMs[0] ?? null,
        maxGapMs: longestGap(tokenTimesMs),
      }
      if (options.tokenTimes) line.tokenTimesMs = tokenTimesMs
      return `${JSON.stringify(line, (_, value) => (typeof value === "number" ? round3(value) : value))}\n`
    })
    .join("")
}
