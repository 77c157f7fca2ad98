/** The SLO range's own judgement: its cells, which rival is the best, and what it says of them. */
import { describe, expect, test } from "vitest"
import {
  earlierOf,
  type Findings,
  parseFindings,
  resultOf,
  summary,
  toJson,
  verdictOf,
} from "../bench/slo-range/findings.ts"
import { type Cell, cellsOf, floorUs, LOADS, OURS, RIVALS, sliceOf, taskOf } from "../bench/slo-range/grid.ts"
import { heatMap } from "../bench/slo-range/heat-map.ts"
import { HARDWARE } from "../src/sim/presets.ts"
import { runScenario } from "../src/study/run.ts"
import { share } from "../src/study/tally.ts"
import { at, runTask } from "../src/study/tasks.ts"

const GRID = { scenarios: ["chatbot", "coder"], loads: LOADS, quick: false }
const SIZE = { requests: 40, seeds: [1, 2] }

const cell = (change: Partial<Cell> = {}): Cell => ({
  scenario: "coder",
  load: 1,
  tpotFactor: 2,
  tpotMs: 50,
  ttft: { label: "3×", slo: { ttftSlowdown: 3 } },
  ...change,
})

const entry = (name: string, label: string, attained: number[]) => ({ name, label, attained })

function findings(ours: number[]): Findings {
  const rivals = [entry("vllm", "a", [10, 40]), entry("vllm", "b", [30, 30]), entry("edf-drop", "", [20, 20])]
  const { ttft, ...rest } = cell()
  const judged = {
    ...rest,
    ttft: ttft.label,
    total: [50, 50],
    ours: entry("slos-serve", "defaults", ours),
    rivals,
  }
  return { command: "c", requests: 55, seeds: [1, 2], cells: [judged] }
}

describe("the grid", () => {
  test("starts below the shortest step and ends without a TTFT", () => {
    const cells = cellsOf(GRID)
    expect(cells).toHaveLength(2 * 3 * 8 * 8)
    const floorMs = floorUs(HARDWARE["opt-6.7b-a100"]!.cost) / 1000
    expect(floorMs).toBeCloseTo(24.87, 2)
    expect(Math.min(...cells.map(({ tpotMs }) => tpotMs))).toBeLessThan(floorMs)
    expect(cells.at(-1)!.ttft.slo).toEqual({})
  })

  test("its slices are disjoint and together everything", () => {
    const cells = cellsOf(GRID)
    const slices = [1, 2, 3, 4, 5].flatMap((i) => sliceOf(cells, { i, n: 5 }))
    expect(slices).toHaveLength(cells.length)
    expect(new Set(slices)).toEqual(new Set(cells))
  })
})

describe("a cell", () => {
  test("runs every contender on the same requests, as runScenario does", () => {
    const contenders = [OURS, ...RIVALS.slice(0, 2)]
    const task = taskOf(cell(), contenders, SIZE)
    const shares = runTask(task)
    const result = resultOf(cell(), contenders, shares)
    const totals = shares.map((seeds) => seeds.map(({ total }) => total))
    expect(totals).toEqual(contenders.map(() => result.total))
    expect(Math.min(...result.total)).toBeGreaterThan(30)
    const { policy, options } = RIVALS[1]!
    const alone = runScenario(at({ ...task.base, policy, options }, task.size, task.ratePerSec, 2)).attainment
    expect(result.rivals[1]).toMatchObject({ name: policy, label: "tokenBudget=512" })
    expect(result.rivals[1]!.attained[1]).toBe(alone.attained)
    expect(result.total[1]).toBe(alone.total)
  })

  test("without objectives everything is kept, with impossible ones nothing", () => {
    const kept = (change: Partial<Cell>) =>
      share(runTask(taskOf(cell(change), [OURS], { requests: 40, seeds: [1] }))[0]![0]!)
    expect(kept({ tpotMs: 60_000, ttft: { label: "none", slo: {} } })).toBe(1)
    expect(kept({ tpotMs: 0.01, ttft: { label: "", slo: { ttftMs: 0.01 } } })).toBe(0)
  })
})

describe("the verdict", () => {
  test("is against the rival whose best setting keeps most over all seeds", () => {
    const verdict = verdictOf(findings([32, 27]).cells[0]!)
    expect(verdict.best).toEqual(entry("vllm", "b", [30, 30]))
    expect(verdict.difference).toBeCloseTo(-1, 9)
    expect(verdict.bySeed.map((points) => Math.round(points))).toEqual([4, -6])
  })

  test("is told with its rivals apart", () => {
    const text = summary(findings([32, 20]))
    expect(text).toContain("| coder, load 1 | 1 | -8.0 | -8.0 | -8.0 | 0% | 1 |")
    expect(text).toContain("| edf-drop | 1 | +12.0 | +12.0 | +12.0 | 100% | 0 |")
    expect(text).toContain("| coder | 1 | 2× (50.0 ms) | 3× | 52.0% | 60.0% | vllm b | -8.0 | +4.0, -20.0 |")
  })

  test("survives being written, and lends its rivals to a later run", () => {
    const written = findings([1, 2])
    const read = parseFindings(toJson(written), "results.json")
    expect(read).toEqual(written)
    expect(earlierOf(read, cell(), "results.json").rivals).toEqual(written.cells[0]!.rivals)
    expect(() => earlierOf(read, cell({ load: 0.5 }), "results.json")).toThrow(/no cell coder, load 0.5/)
    expect(() => parseFindings('{"cells":[]}', "results.json")).toThrow(/results.json: command/)
  })

  test("is drawn", async () => {
    const svg = await heatMap([verdictOf(findings([32, 20]).cells[0]!)], "a title")
    expect(svg).toContain("a title")
    expect(svg).toContain("−8.0")
  })
})
