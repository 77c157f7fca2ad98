/** What missing costs: every system once at its own capacity and once at slos-serve's. Giving up late requests flatters
 * attainment; what those requests then wait, and the work that went to them all the same, stands beside it. */
import type { Row, Spending, Study } from "./results.ts"
import { type StudyOptions, stage } from "./stage.ts"
import { share } from "./tally.ts"
import type { SweepTask } from "./tasks.ts"

export async function spendings(options: StudyOptions, { rows }: Study): Promise<Spending[]> {
  const own = rows.filter((row) => row.speculate === options.speculate[0]!)
  const cases = own.flatMap((row) => {
    const commonRate =
      own.find((r) => r.scenario === row.scenario && r.system === "slos-serve")?.ratePerSec ?? 0
    const at: { at: Spending["at"]; ratePerSec: number }[] = [
      { at: "own", ratePerSec: row.ratePerSec },
      { at: "common", ratePerSec: commonRate },
    ]
    return at.filter(({ ratePerSec }) => ratePerSec > 0).map((place) => ({ row, ...place }))
  })
  const tasks = cases.map(({ row, ratePerSec }) => taskOf(row, ratePerSec, options.seeds))
  const labels = cases.map(({ row, ratePerSec }) => `${row.scenario} ${row.system} at ${ratePerSec}/s`)
  const results = await stage(options, "missed requests", tasks, labels)
  return cases.map(({ row, at, ratePerSec }, i) => {
    const [report] = results[i]!.points[0]!.reports
    const { attainment, missedTtftMs, longestPauseMs, goodput, missedWorkShare } = report!
    return {
      ...{ scenario: row.scenario, system: row.system, at, ratePerSec, attainment: share(attainment) },
      ...{ missedTtftMs, longestPauseMs, goodput, missedWorkShare },
    }
  })
}

/** One seed: these are no capacities. */
function taskOf({ spec, size }: Row, ratePerSec: number, seeds: readonly number[]): SweepTask {
  return { kind: "sweep", base: spec, size, rates: [ratePerSec], seeds: seeds.slice(0, 1) }
}
