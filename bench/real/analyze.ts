/** Turns a results folder (runs.jsonl) into tables and a chart: results.md and attainment.svg in the same folder. */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Command } from "commander"
import { median } from "simple-statistics"
import { attainmentChart } from "./chart.ts"
import { rateOf } from "./ladder.ts"
import { paired, slopeOf } from "./pairs.ts"
import { type Meta, type RunRow, readRows } from "./rows.ts"
import { analyse, type Interval, type Point, pooled } from "./statistics.ts"

async function main(): Promise<void> {
  const program = new Command("bench/real/analyze.ts")
    .argument("<folder>", "results folder of run.ts")
    .option("--ours <system>", "system that the others are compared with", "slos-serve")
    .option("--keep-invalid", "also use runs whose generator could not keep its schedule")
    .parse()
  const folder = program.args[0]!
  const { ours, keepInvalid } = program.opts<{ ours: string; keepInvalid?: boolean }>()
  const meta = JSON.parse(readFileSync(join(folder, "meta.json"), "utf8")) as Meta
  const all = readRows(folder)
  const rows =
    keepInvalid === true ? all : all.filter((row) => !row.score.problems.some((p) => p.startsWith("invalid")))
  if (rows.length === 0) throw new Error(`no usable runs in ${folder}`)
  const typicalMs = median(rows.map(referenceMs))
  const points = rows.map((row) => pointOf(row, typicalMs))
  const raw = rows.map((row) => ({ ...pointOf(row, referenceMs(row)), rung: row.rung }))
  const sections = [
    heading(meta, rows, all.length - rows.length, typicalMs),
    capacityTable(points, raw, ours),
    curveTable(raw),
    pairTable(rows, ours),
    classTable(rows, ours, points),
    decileTable(rows, points),
    qualityTable(rows),
  ]
  writeFileSync(join(folder, "results.md"), `${sections.join("\n\n")}\n`)
  const chart = pooled(raw).map((p) => ({ ...p, ratePerSec: rateOf(p.rung), attainment: p.value }))
  writeFileSync(
    join(folder, "attainment.svg"),
    await attainmentChart(chart, `${meta.scenario}, ${meta.model}, ${meta.setup.threads} thread(s)`),
  )
  console.log(sections.join("\n\n"))
}

/** Ours and each other system on the same windows. */
function pairTable(rows: readonly RunRow[], ours: string): string {
  const own = rows.filter((row) => row.system === ours)
  const others = [...new Set(rows.map((row) => row.system))].filter((system) => system !== ours)
  const lines = others.flatMap((system) => {
    const pairs = own.flatMap((mine) => {
      const theirs = rows.find((r) => r.system === system && r.seed === mine.seed && r.rung === mine.rung)
      if (theirs === undefined) return []
      const points = ({ score: { requests } }: RunRow) => (100 * requests.attained) / requests.total
      const slower = Math.log(referenceMs(mine) / referenceMs(theirs))
      return [{ ratePerSec: mine.ratePerSec, ahead: points(mine) - points(theirs), slower }]
    })
    const share = (value: number, error: number) =>
      Number.isNaN(value) ? "" : `${value.toFixed(1)} ± ${error.toFixed(1)}`
    const slope = slopeOf(pairs)
    return paired(pairs).map(({ rate, pairs: count, ahead, error, even, evenError }) => {
      const perTenth = rate === "all" ? share(0.1 * slope.value, 0.1 * slope.error) : ""
      return `| ${system} | ${rate} | ${count} | ${share(ahead, error)} | ${share(even, evenError)} | ${perTenth} |`
    })
  })
  return [
    `## ${ours} less each other system, the same windows (points, ± standard error)`,
    "The speed of the machine is that of the reference batch before and after each run; what it gives is a straight line through all pairs.",
    "| system | requests/s | pairs | as measured | at equal speed | for each 10% that the machine was slower |\n| --- | --- | --- | --- | --- | --- |\n" +
      lines.join("\n"),
  ].join("\n\n")
}

function referenceMs(row: RunRow): number {
  return (row.before.batchMs + row.after.batchMs) / 2
}

/** On a machine that is slower just now the same rate is a higher load: the rate is scaled by the reference. */
function pointOf(row: RunRow, typicalMs: number): Point {
  const ratePerSec = row.ratePerSec * (referenceMs(row) / typicalMs)
  return {
    system: row.system,
    seed: row.seed,
    ratePerSec,
    nominalPerSec: row.ratePerSec,
    ...row.score.requests,
  }
}

function heading(meta: Meta, rows: readonly RunRow[], dropped: number, typicalMs: number): string {
  const drift = rows.map((row) => referenceMs(row) / typicalMs).sort((a, b) => a - b)
  const classes = Object.entries(meta.classes).flatMap(([name, slo]) => {
    const objectives = [
      slo.ttftSlowdown !== undefined && `TTFT ${slo.ttftSlowdown}× zero-load prefill`,
      slo.ttftMs !== undefined && `TTFT ${slo.ttftMs} ms`,
      slo.tpotMs !== undefined && `TPOT ${slo.tpotMs} ms`,
      slo.thinkingTpotMs !== undefined && `thinking ${slo.thinkingTpotMs} ms`,
      slo.maxGapMs !== undefined && `longest gap ${slo.maxGapMs} ms`,
    ].filter((objective) => objective !== false)
    return objectives.length === 0 ? [] : [`${name} ${objectives.join(", ")}`]
  })
  return [
    `# Attainment against rate: ${meta.scenario} on ${meta.model}`,
    `${rows.length} runs of ${meta.durationSec} s (${dropped} dropped: the generator was late), ` +
      `${new Set(rows.map((row) => row.seed)).size} arrival windows, gamma arrivals of burstiness ${meta.burstiness}, lengths ` +
      `divided by ${meta.scale}. ${meta.cpu}; engine threads ${meta.setup.threads}, ${meta.setup.slots} sequences of ` +
      `${meta.setup.contextTokens} tokens. Zero-load prefill ${meta.zeroLoad.ms.toFixed(1)} ms + ` +
      `${meta.zeroLoad.msPerToken.toFixed(3)} ms/token.`,
    `SLOs: ${classes.join("; ")}.`,
    `Lengths: ${Object.entries(meta.sources)
      .map(([app, source]) => `${app}: ${source}`)
      .join("; ")}.`,
    `The reference batch took ${typicalMs.toFixed(0)} ms (median); between runs it varied from ` +
      `${drift[0]!.toFixed(2)} to ${drift.at(-1)!.toFixed(2)} of that. Rates are scaled by it.`,
    `Command: \`node bench/real/run.ts ${meta.commandLine.join(" ")}\``,
  ].join("\n\n")
}

function capacityTable(points: readonly Point[], raw: readonly Point[], ours: string): string {
  const { capacities, ratio } = analyse(points)
  const unscaled = new Map(analyse(raw, 0.9, 0).capacities.map((entry) => [entry.system, entry.value]))
  const sorted = [...capacities].sort((a, b) => b.value - a.value)
  const known = capacities.some((entry) => entry.system === ours)
  const sign = { exact: "", atLeast: "≥ ", atMost: "≤ " }
  return [
    "## Capacity: highest rate with 90% of requests in time (95% intervals, windows resampled in pairs)",
    table(
      [
        "system",
        "requests/s",
        "95% interval",
        "not normalized",
        `${ours} is … times this`,
        "95% interval",
        "runs",
        "windows",
      ],
      sorted.map((entry) => {
        const against = known && entry.system !== ours ? ratio(ours, entry.system) : null
        return [
          entry.system,
          sign[entry.bound] + entry.value.toFixed(2),
          interval(entry),
          unscaled.get(entry.system)!.toFixed(2),
          against === null ? "" : against.value.toFixed(2),
          against === null ? "" : interval(against),
          entry.runs,
          entry.seeds,
        ]
      }),
    ),
  ].join("\n\n")
}

function curveTable(raw: readonly (Point & { rung: number })[]): string {
  return [
    "## Attainment by rate",
    table(
      ["system", "requests/s", "in time", "95% interval", "runs"],
      pooled(raw).map((p) => [
        p.system,
        rateOf(p.rung),
        percent(p.value),
        `${percent(p.low)}–${percent(p.high)}`,
        p.runs,
      ]),
    ),
  ].join("\n\n")
}

/** Each system at the rung nearest its own capacity. */
function atKnee(rows: readonly RunRow[], points: readonly Point[]): Map<string, RunRow[]> {
  const { capacities } = analyse(points, 0.9, 0)
  const knees = new Map<string, RunRow[]>()
  for (const { system, value } of capacities) {
    const own = rows.filter((row) => row.system === system)
    const distance = (rung: number) => Math.abs(Math.log(rateOf(rung) / value))
    const nearest = own.map((row) => row.rung).sort((a, b) => distance(a) - distance(b))[0]!
    knees.set(
      system,
      own.filter((row) => row.rung === nearest),
    )
  }
  return knees
}

function classTable(rows: readonly RunRow[], ours: string, points: readonly Point[]): string {
  const apps = [...new Set(rows.flatMap((row) => Object.keys(row.score.apps)))]
  const line = (name: string, list: readonly RunRow[]) => [
    name,
    rateOf(list[0]!.rung),
    ...apps.map((app) => percent(share(list.map((row) => row.score.apps[app]?.requests)))),
    percent(share(list.map((row) => row.score.every10))),
  ]
  const knees = [...atKnee(rows, points)].map(([system, list]) => line(system, list))
  const own = rows.filter((row) => row.system === ours)
  const rungs = [...new Set(own.map((row) => row.rung))].sort((a, b) => a - b)
  const stages = [
    ...new Set(own.flatMap((row) => Object.values(row.score.apps).flatMap((app) => Object.keys(app.stages)))),
  ]
  return [
    "## By class, each system at the measured rate nearest its capacity",
    table(["system", "requests/s", ...apps, "all, every 10th token"], knees),
    `## ${ours} by class and rate`,
    table(
      ["system", "requests/s", ...apps, "all, every 10th token"],
      rungs.map((rung) =>
        line(
          ours,
          own.filter((row) => row.rung === rung),
        ),
      ),
    ),
    `## ${ours} by stage and rate (rounds)`,
    table(
      ["requests/s", ...stages],
      rungs.map((rung) => [
        rateOf(rung),
        ...stages.map((stage) =>
          percent(
            share(
              own
                .filter((row) => row.rung === rung)
                .flatMap((row) => Object.values(row.score.apps).map((app) => app.stages[stage])),
            ),
          ),
        ),
      ]),
    ),
  ].join("\n\n")
}

function decileTable(rows: readonly RunRow[], points: readonly Point[]): string {
  const lines = [...atKnee(rows, points)].map(([system, list]) => [
    system,
    rateOf(list[0]!.rung),
    ...Array.from({ length: 10 }, (_, i) => percent(share(list.map((row) => row.score.sizeDeciles[i])))),
  ])
  const heads = Array.from({ length: 10 }, (_, i) => `${i + 1}`)
  return [
    "## By size decile (1 = smallest), at the same rates",
    table(["system", "requests/s", ...heads], lines),
  ].join("\n\n")
}

function qualityTable(rows: readonly RunRow[]): string {
  const systems = [...new Set(rows.map((row) => row.system))]
  const worst = (list: number[]) => Math.max(...list).toFixed(0)
  return [
    "## Quality of the measurement",
    table(
      ["system", "worst send lag p99 (ms)", "rounds not ok", "problems"],
      systems.map((system) => {
        const own = rows.filter((row) => row.system === system)
        const ends: Record<string, number> = {}
        for (const row of own)
          for (const [end, n] of Object.entries(row.score.ends)) ends[end] = (ends[end] ?? 0) + n
        const bad = Object.entries(ends).filter(([end]) => end !== "ok")
        return [
          system,
          worst(own.map((row) => row.score.sendLagMs.p99)),
          bad.map(([end, n]) => `${n} ${end}`).join(", "),
          [...new Set(own.flatMap((row) => row.score.problems.map((p) => p.replace(/^\d+ /, ""))))].join(
            "; ",
          ),
        ]
      }),
    ),
    "`abandoned`: had already missed when the run was stopped, after the last arrival.",
  ].join("\n\n")
}

function share(parts: readonly ({ attained: number; total: number } | undefined)[]): number {
  let [attained, total] = [0, 0]
  for (const part of parts) {
    attained += part?.attained ?? 0
    total += part?.total ?? 0
  }
  return attained / total
}

function percent(value: number): string {
  return Number.isNaN(value) ? "–" : `${(100 * value).toFixed(1)}%`
}

function interval({ low, high }: Interval): string {
  return `${low.toFixed(2)}–${high.toFixed(2)}`
}

function table(head: readonly (string | number)[], rows: readonly (readonly (string | number)[])[]): string {
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(" | ")} |`
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n")
}

await main()
