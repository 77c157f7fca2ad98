/** What the days of advise.ts say: how far forecasts were off, how often the advice was right, and what following it cost. */
import { quantiles } from "../../src/load/statistics.ts"
import type { Day, Minute } from "./advise.ts"

const TARGET = 0.9
const percent = (share: number): string => `${(100 * share).toFixed(1)}%`

/** The least number of replicas that then kept the target. */
export function neededIn({ kept }: Minute): number {
  const enough = Object.entries(kept).filter(([, share]) => share >= TARGET)
  return Math.min(...enough.map(([count]) => Number(count)))
}

/** What a fleet of this size then kept: all, where a smaller one did. */
function keptBy({ kept }: Minute, count: number): number {
  const own = kept[count]
  if (own !== undefined) return own
  const sizes = Object.keys(kept).map(Number)
  return count > Math.max(...sizes) ? kept[Math.max(...sizes)]! : kept[Math.min(...sizes)]!
}

export function adviceTables(days: readonly Day[]): string {
  const all = days.flatMap(({ minutes }) => minutes)
  return [errors(all), rightness(all), following(days)].join("\n\n")
}

function errors(minutes: readonly Minute[]): string {
  const bySize = (name: string, pick: (minute: Minute, count: number) => boolean) => {
    const found = minutes.flatMap((minute) =>
      Object.entries(minute.foretold)
        .filter(([count]) => minute.kept[Number(count)] !== undefined && pick(minute, Number(count)))
        .map(([count, share]) => share - minute.kept[Number(count)]!),
    )
    const off = quantiles(found.map(Math.abs))
    const mean = found.reduce((sum, one) => sum + one, 0) / Math.max(1, found.length)
    return `| ${name} | ${found.length} | ${percent(off?.mean ?? 0)} | ${percent(off?.p90 ?? 0)} | ${(100 * mean).toFixed(1)} points |`
  }
  return [
    "| fleet | forecasts | mean error | 90% are within | mean of forecast less kept |",
    "| --- | --- | --- | --- | --- |",
    bySize("of the size advised", ({ best }, count) => count === best),
    bySize("one less", ({ best }, count) => count === best - 1),
    bySize("one more", ({ best }, count) => count === best + 1),
    bySize("all sizes", () => true),
  ].join("\n")
}

function rightness(minutes: readonly Minute[]): string {
  const row = (name: string, of: (minute: Minute) => number) => {
    const off = minutes.map((minute) => of(minute) - neededIn(minute))
    const share = (pick: (by: number) => boolean) => percent(off.filter(pick).length / off.length)
    const cells = [
      (by: number) => by === 0,
      (by: number) => Math.abs(by) <= 1,
      (by: number) => by < 0,
      (by: number) => by > 0,
    ]
    return `| ${name} | ${cells.map(share).join(" | ")} |`
  }
  return [
    "| against the least that then kept 90% | right | within one | too few | too many |",
    "| --- | --- | --- | --- | --- |",
    row("advice", ({ best }) => best),
    row("advice without the trend", ({ flat }) => flat),
    row("asked for (down after 5 minutes)", ({ wanted }) => wanted),
    row("as many as the last minutes' rate takes, tuned", tunedRule(minutes)),
  ].join("\n")
}

/** A rule that knows only the rate: so many requests/s a replica, tuned on these very days to be too few as often as the
 * advice. */
function tunedRule(minutes: readonly Minute[]): (minute: Minute) => number {
  const few = (of: (minute: Minute) => number) => minutes.filter((one) => of(one) < neededIn(one)).length
  const rule = (perReplica: number) => (one: Minute) => Math.max(1, Math.ceil(one.pastPerSec / perReplica))
  const allowed = few(({ best }) => best)
  let best = 0.1
  for (let perReplica = 0.1; perReplica < 8; perReplica += 0.05)
    if (few(rule(perReplica)) <= allowed) best = perReplica
  return rule(best)
}

function following(days: readonly Day[]): string {
  const minutes = days.flatMap(({ minutes }) => minutes)
  const most = Math.max(...minutes.map(neededIn))
  const row = (name: string, of: (minute: Minute) => number) => {
    const kept = minutes.map((minute) => keptBy(minute, of(minute)))
    const requests = minutes.map(({ ratePerSec }) => ratePerSec)
    const all = requests.reduce((sum, one) => sum + one, 0)
    const share = kept.reduce((sum, one, i) => sum + one * requests[i]!, 0) / all
    const size = minutes.reduce((sum, minute) => sum + of(minute), 0) / minutes.length
    return `| ${name} | ${size.toFixed(2)} | ${percent(share)} | ${percent(kept.filter((one) => one < TARGET).length / kept.length)} |`
  }
  return [
    "| fleet | replicas, mean | requests that keep their SLOs | minutes below 90% |",
    "| --- | --- | --- | --- |",
    row("as asked for", ({ wanted }) => wanted),
    row("as advised, down at once", ({ best }) => best),
    row("by the rate alone, tuned", tunedRule(minutes)),
    row("the least that keeps 90%, known beforehand", neededIn),
    row("always as many as the worst minute needs", () => most),
  ].join("\n")
}
