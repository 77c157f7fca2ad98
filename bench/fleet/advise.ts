/** The scaling signal against what then happened: over a day of changing load, each minute's advice comes from the minutes
 * before it, and is compared with what a fleet of each size then keeps of the very requests that come. Virtual time.
 *
 *   node bench/fleet/advise.ts --seeds 1,2,3 --out bench/results/fleet/advise.json --svg docs/advise.svg
 *
 * The next minute of a fleet of any size is simulated on its own, begun a minute earlier so that it is warm. A replica that
 * is asked for at the end of a minute serves after one more. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { dirname } from "node:path"
import { parseArgs } from "node:util"
import { APPS } from "../../src/load/workload.ts"
import { adviseNow } from "../../src/scale/advice.ts"
import type { Arrival } from "../../src/scale/arrival.ts"
import { attainmentOf, type FleetSetup, play } from "../../src/scale/play.ts"
import { Wanted } from "../../src/scale/wanted.ts"
import { limitsOf } from "../../src/sim/presets.ts"
import { routerFor } from "../../src/study/spec.ts"
import { advicePicture } from "./advise-picture.ts"
import { adviceTables } from "./advise-tables.ts"
import { DAY_S, dayOf, hardware } from "./day.ts"

export interface Minute {
  /** End of the minute after which the advice was given. */
  minute: number
  /** Arrivals/s in the minute that it is for. */
  ratePerSec: number
  /** Arrivals/s in the window before. */
  pastPerSec: number
  growth: number
  /** Replicas that serve, the least that are said to be enough, and the same without following the trend. */
  replicas: number
  best: number
  flat: number
  /** Asked for after the advice, with the wait before going down. */
  wanted: number
  /** By number of replicas: what was foretold, and what then was kept, shares. */
  foretold: Record<number, number>
  kept: Record<number, number>
}

export interface Day {
  seed: number
  minutes: Minute[]
}

export const TARGET = 0.9
const WINDOW_S = 180
const COLD_START_S = 60
const DOWN_AFTER_S = 300
const MOST_PLAYED = 1000
const MOST_REPLICAS = 24
const MINUTE_US = 60e6

const SETUP: FleetSetup = {
  ...{ limits: limitsOf(hardware), cost: hardware.cost, calibration: 1, policy: "slos-serve", options: {} },
  ...{ apps: APPS.length, acceptance: 0.7, router: routerFor("slos-serve"), maxQueue: 10_000 },
}

function simulateDay(seed: number, every: number): Day {
  const day = dayOf(seed)
  const wanted = new Wanted(DOWN_AFTER_S * 1e6, 2, 0)
  let replicas = 2
  const minutes: Minute[] = []
  for (let minute = WINDOW_S / 60; minute + 2 <= DAY_S / 60; minute += every) {
    const found = oneMinute(day, minute, replicas, wanted, seed)
    minutes.push(found)
    replicas = found.wanted
    const { growth, best, flat, ratePerSec } = found
    process.stderr.write(
      `seed ${seed} minute ${minute}: ${ratePerSec.toFixed(1)}/s, growth ${growth.toFixed(2)}, best ${best}, flat ${flat}, ` +
        `asked ${found.wanted}, then ${JSON.stringify(found.kept)}\n`,
    )
  }
  return { seed, minutes }
}

function oneMinute(
  day: readonly Arrival[],
  minute: number,
  replicas: number,
  wanted: Wanted,
  seed: number,
): Minute {
  const nowUs = minute * MINUTE_US
  const arrivals = day.filter(({ atUs }) => atUs >= nowUs - 2 * WINDOW_S * 1e6 && atUs < nowUs)
  const recording = { arrivals: arrivals.map((arrival) => asKnown(arrival, nowUs)), sinceUs: 0, nowUs }
  const options = {
    target: TARGET,
    windowS: WINDOW_S,
    most: MOST_PLAYED,
    mostReplicas: MOST_REPLICAS,
    seed,
    replicas,
  }
  const advice = adviseNow(SETUP, recording, { ...options, coldStartS: COLD_START_S })
  const flat = advice.growth === 1 ? advice : adviseNow(SETUP, recording, { ...options, coldStartS: 0 })
  const fromUs = nowUs + COLD_START_S * 1e6
  const asked = wanted.take(advice.best, nowUs)
  const rate = (from: number, to: number) =>
    day.filter(({ atUs }) => atUs >= from && atUs < to).length / ((to - from) / 1e6)
  return {
    ...{
      minute,
      replicas,
      best: advice.best,
      flat: flat.best,
      wanted: asked,
      growth: rounded(advice.growth),
    },
    ratePerSec: rounded(rate(fromUs, fromUs + MINUTE_US)),
    pastPerSec: rounded(rate(nowUs - WINDOW_S * 1e6, nowUs)),
    foretold: Object.fromEntries(advice.forecasts.map((f) => [f.replicas, rounded(attainmentOf(f))])),
    kept: thenKept(day, fromUs, [advice.best, flat.best, asked], seed),
  }
}

const rounded = (value: number): number => Math.round(value * 1000) / 1000

/** As the recorder knows it at that time: an answer takes about a token a pace. */
function asKnown(arrival: Arrival, nowUs: number): Arrival {
  const endUs = arrival.atUs + 500_000 + arrival.outputTokens * 70_000
  if (endUs < nowUs) return { ...arrival, endUs, end: "done" }
  return { ...arrival, end: "live", outputTokens: 0 }
}

/** What fleets keep of the minute from `fromUs` on: of these sizes, of the least that keeps the target, and beside them. */
function thenKept(day: readonly Arrival[], fromUs: number, sizes: readonly number[], seed: number) {
  const toUs = fromUs + MINUTE_US
  const arrivals = day.filter(({ atUs }) => atUs >= fromUs - MINUTE_US && atUs < toUs + MINUTE_US / 4)
  const kept: Record<number, number> = {}
  const at = (count: number) =>
    (kept[count] ??= rounded(
      attainmentOf(play(SETUP, { arrivals, fromUs, toUs }, count, { seed: seed + 1000, untilDecided: true })),
    ))
  const [least, most] = [Math.min(...sizes), Math.max(...sizes)]
  for (let count = least; count <= most; count++) at(count)
  for (let count = least; count > 1 && at(count) >= TARGET; count--) at(count - 1)
  for (let count = most; count < MOST_REPLICAS && at(count) < TARGET; count++) at(count + 1)
  for (const count of [sizes[0]! - 1, sizes[0]! + 1]) if (count >= 1) at(count)
  return kept
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seeds: { type: "string", default: "1,2,3" },
      every: { type: "string", default: "1" },
      out: { type: "string", default: "bench/results/fleet/advise.json" },
      svg: { type: "string", default: "docs/advise.svg" },
      /** Only the tables and the picture of results that are there. */
      show: { type: "boolean", default: false },
    },
  })
  const days = values.show
    ? (JSON.parse(readFileSync(values.out, "utf8")) as { days: Day[] }).days
    : values.seeds.split(",").map((seed) => simulateDay(Number(seed), Number(values.every)))
  if (!values.show) {
    mkdirSync(dirname(values.out), { recursive: true })
    const about = { target: TARGET, windowS: WINDOW_S, coldStartS: COLD_START_S, downAfterS: DOWN_AFTER_S }
    writeFileSync(values.out, `${JSON.stringify({ ...about, days })}\n`)
  }
  writeFileSync(values.svg, await advicePicture(days[0]!))
  process.stdout.write(`${adviceTables(days)}\n`)
}

await main()
