/** From paired rounds to a table: the median ratio of each setting with an interval that assumes no distribution, and
 * what it says about the rule that speculation never costs more than 3%. */
import { median } from "simple-statistics"
import { type Answers, type OpenLoop, rateOf } from "./served.ts"

/** The same answers without, with, with and without drafts (or the other way round), one after the other. */
export interface Round {
  case: string
  task: string
  repeats: boolean
  sequences: number
  round: number
  /** Which of the two went first and last. */
  first: "off" | "on"
  off: [Answers, Answers]
  on: [Answers, Answers]
}

/** The same arrivals without and with drafts. */
export interface Load {
  case: string
  ratePerSec: number
  seed: number
  off: OpenLoop
  on: OpenLoop
}

/** Speculation may cost this share, no more. */
const MOST_LOSS = 0.03
const CONFIDENCE = 0.95

export interface Interval {
  low: number
  high: number
}

/** Of the median: the closest two of the sorted values between which it lies with `CONFIDENCE`, whatever their
 * distribution (each value is above it or below it like a coin). Null: too few values. */
export function medianInterval(values: readonly number[]): Interval | null {
  const sorted = [...values].sort((a, b) => a - b)
  let outside = 0
  let chosen: Interval | null = null
  for (let i = 0; 2 * i < sorted.length - 1; i++) {
    outside += 2 * binomial(sorted.length, i)
    if (outside > 1 - CONFIDENCE) break
    chosen = { low: sorted[i]!, high: sorted[sorted.length - 1 - i]! }
  }
  return chosen
}

/** Probability of `k` heads of `n` coins. */
function binomial(n: number, k: number): number {
  let p = 0.5 ** n
  for (let i = 0; i < k; i++) p *= (n - i) / (i + 1)
  return p
}

export function report(rounds: readonly Round[], loads: readonly Load[]): string {
  const lines = [
    "# Speculation, paired",
    "",
    "Tokens/s of a request (median) without and with drafts. A round is without, with, with, without (or the other way round);",
    "its ratio is with/without. The interval holds the median ratio with 95% confidence, by order statistics.",
    "",
    row(
      "model, drafter",
      "task",
      "at once",
      "without",
      "with",
      "with/without",
      "interval",
      "says",
      "at most 3% lost",
      "by CPU time",
      "rounds",
      "accepted of drafted",
      "drafted a step and request",
    ),
    row(...Array<string>(13).fill("---")),
  ]
  const groups = Map.groupBy(rounds, (r) => [r.case, r.task, r.sequences].join("|"))
  for (const group of groups.values()) lines.push(setting(group))
  lines.push("", ...together(rounds))
  if (loads.length > 0) lines.push("", ...loadLines(loads))
  return `${lines.join("\n")}\n`
}

/** What single settings have too few rounds to say. */
function together(rounds: readonly Round[]): string[] {
  const control = ({ case: name }: Round) => name.endsWith(", off")
  const compared = rounds.filter((round) => !control(round))
  const drafted = ({ on }: Round) => on[0].drafted + on[1].drafted > 0
  const kinds: [string, readonly Round[]][] = [
    ["work that repeats", compared.filter(({ repeats }) => repeats)],
    ["work that does not", compared.filter(({ repeats }) => !repeats)],
    ["rounds in which nothing was drafted", compared.filter((round) => !drafted(round))],
    ["without drafts both times", rounds.filter(control)],
  ]
  const lines = kinds.map(([kind, some]) => {
    const ratios = ratiosOf(some)
    const interval = medianInterval(ratios)
    if (interval === null) return row(kind, "", "too few rounds", "", ratios.length)
    const { low, high } = interval
    const range = `${low.toFixed(3)}–${high.toFixed(3)}`
    return row(kind, `**${median(ratios).toFixed(3)}×**`, range, loss(interval), ratios.length)
  })
  const head = ["all settings together", "with/without", "interval", "at most 3% lost", "rounds"]
  return [row(...head), row(...head.map(() => "---")), ...lines]
}

/** Of each round: the mean of the two values of a side. */
function meansOf(
  rounds: readonly Round[],
  side: "off" | "on",
  value: (answers: Answers) => number,
): number[] {
  return rounds.map((round) => (value(round[side][0]) + value(round[side][1])) / 2)
}

function ratiosOf(rounds: readonly Round[]): number[] {
  return quotients(meansOf(rounds, "on", rateOf), meansOf(rounds, "off", rateOf))
}

function setting(group: readonly Round[]): string {
  const { case: name, task, sequences, repeats } = group[0]!
  const of = (side: "off" | "on", value: (answers: Answers) => number) => meansOf(group, side, value)
  const ratios = ratiosOf(group)
  const interval = medianInterval(ratios)
  const sum = (key: "drafted" | "accepted" | "turns") =>
    of("on", (answers) => answers[key]).reduce((a, b) => a + b)
  const cpu = ({ cpuSeconds }: Answers) => cpuSeconds
  return row(
    ...[name, repeats ? task : `${task} (does not repeat)`, sequences],
    ...[median(of("off", rateOf)).toFixed(1), median(of("on", rateOf)).toFixed(1)],
    `**${median(ratios).toFixed(2)}×**`,
    interval === null ? "too few rounds" : `${interval.low.toFixed(3)}–${interval.high.toFixed(3)}`,
    ...[against(interval), loss(interval)],
    `${median(quotients(of("off", cpu), of("on", cpu))).toFixed(2)}×`,
    ratios.length,
    sum("drafted") === 0 ? "none drafted" : (sum("accepted") / sum("drafted")).toFixed(2),
    (sum("drafted") / sum("turns")).toFixed(2),
  )
}

function against(interval: Interval | null): string {
  if (interval === null) return "nothing"
  if (interval.low > 1) return "**faster**"
  return interval.high < 1 ? "**slower**" : "not told apart from 1"
}

function loss(interval: Interval | null): string {
  if (interval === null) return "open"
  if (interval.low >= 1 - MOST_LOSS) return "shown"
  return interval.high < 1 - MOST_LOSS ? "**broken**" : "open"
}

function loadLines(loads: readonly Load[]): string[] {
  const lines = [
    "Requests in time at a rate (Poisson arrivals, repeating tasks, prompts computed anew); the engine's busy share of the time.",
    "Those in time in only one of the two runs of the same arrivals tell them apart (sign test).",
    "",
    row(
      "model, drafter",
      "requests/s",
      "requests",
      "busy without",
      "busy with",
      "in time without",
      "in time with",
      "only without",
      "only with",
      "says",
    ),
    row(...Array<string>(10).fill("---")),
  ]
  for (const group of Map.groupBy(loads, (load) => `${load.case}|${load.ratePerSec}`).values()) {
    const { case: name, ratePerSec } = group[0]!
    const [off, on] = (["off", "on"] as const).map((side) =>
      group.flatMap((load) => load[side].attained),
    ) as [boolean[], boolean[]]
    const busy = (side: "off" | "on") =>
      percent(
        total(group.map((load) => load[side].busySeconds)) / total(group.map((load) => load[side].seconds)),
      )
    const kept = (side: readonly boolean[]) => percent(side.filter(Boolean).length / side.length)
    const only = (side: readonly boolean[], other: readonly boolean[]) =>
      side.filter((kept, i) => kept && !other[i]).length
    const [without, withDrafts] = [only(off, on), only(on, off)]
    lines.push(
      row(
        name,
        ratePerSec.toFixed(2),
        off.length,
        busy("off"),
        busy("on"),
        kept(off),
        kept(on),
        without,
        withDrafts,
        signs(without, withDrafts),
      ),
    )
  }
  return lines
}

/** Are `a` and `b` of so many coins too far apart? */
function signs(a: number, b: number): string {
  let tail = 0
  for (let k = 0; k <= Math.min(a, b); k++) tail += binomial(a + b, k)
  if (2 * tail > 1 - CONFIDENCE) return "not told apart"
  return a > b ? "**fewer in time**" : "**more in time**"
}

const quotients = (a: readonly number[], b: readonly number[]) => a.map((value, i) => value / b[i]!)
const total = (values: readonly number[]) => values.reduce((a, b) => a + b, 0)
const percent = (share: number) => `${(100 * share).toFixed(1)}%`
const row = (...cells: (string | number)[]) => `| ${cells.join(" | ")} |`
