/** Both planners over admission instances with known answers: profit against proven optima, every schedule replayed
 * by the checker, time per decision against the published C++. Skipped when the files are not there. */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { gunzipSync } from "node:zlib"
import Table from "cli-table3"
import { Command } from "commander"
import { quantile } from "simple-statistics"
import { listOf, wholeNumber } from "../src/cli/numbers.ts"
import type { PolicyName } from "../src/core/policy/index.ts"
import { checkPlan } from "../src/instances/check.ts"
import { type Instance, readInstance } from "../src/instances/instance.ts"
import { Solver } from "../src/instances/solve.ts"

interface Optimum {
  feasible?: boolean
  profit?: number
  proven: boolean
}
interface Known {
  id: string
  algos: Record<string, { us?: number; status: string }>
  optimum: Record<string, Optimum | undefined>
}
/** One decision. Profits of −1: infeasible, even without new requests. */
interface Row {
  policy: PolicyName
  speculate: boolean
  id: string
  family: string
  fresh: number
  profit: number
  chain: number | null
  edf: number | null
  violations: string[]
  lateTokens: number
  us: number
  publishedUs: number | null
}

const PLANNERS: readonly PolicyName[] = ["slos-serve-paper", "slos-serve"]
const SIZES = [4, 8, 10, 12, 16, 24, 32]
/** Where the published code gave up. */
const TIMEOUT_US = 10e6

const { oracle, json, repeat, out, policies } = new Command("bench/planner.ts")
  .description("both planners against instances with known answers")
  .option("--oracle <folder>", "instances.jsonl.gz and results.jsonl.gz", "../shared/oracle")
  .option("--repeat <n>", "decisions per instance; the median time counts", wholeNumber(1, 1000), 3)
  .option("--policies <list>", "which planners", listOf(PLANNERS), [...PLANNERS])
  .option("--json", "print rows as JSON")
  .option("--out <file>", "write rows as JSON")
  .parse()
  .opts<{ oracle: string; json?: boolean; policies: PolicyName[]; repeat: number; out?: string }>()

const lines = (name: string) =>
  gunzipSync(readFileSync(join(oracle, name)))
    .toString("utf8")
    .trim()
    .split("\n")

if (existsSync(join(oracle, "instances.jsonl.gz"))) main()
else console.log(`skipped: ${oracle} has no instances.jsonl.gz; name the folder with --oracle`)

function main(): void {
  const instances = lines("instances.jsonl.gz").map((line, i) => readInstance(line, oracle, i + 1))
  const known = lines("results.jsonl.gz").map((line) => JSON.parse(line) as Known)
  const rows: Row[] = []
  for (const policy of policies) {
    for (const speculate of [false, true]) {
      const solver = new Solver({ policy, speculate, margin: 0 }, () => performance.now() * 1000)
      // The first decisions of a process are its compiler's, not the planner's.
      for (const instance of instances.slice(0, 30)) solver.solve(instance)
      instances.forEach((instance, i) => {
        rows.push(decide(solver, policy, speculate, instance, known[i]!))
      })
    }
  }
  if (out !== undefined) writeFileSync(out, `${JSON.stringify(rows)}\n`)
  console.log(json ? JSON.stringify(rows) : report(rows))
}

function decide(
  solver: Solver,
  policy: PolicyName,
  speculate: boolean,
  instance: Instance,
  known: Known,
): Row {
  const answers = Array.from({ length: repeat }, () => solver.solve(instance))
  const answer = answers[0]!
  const { violations, lateTokens } = checkPlan(instance, answer)
  const published = known.algos[speculate ? "promax_sd" : "promax_ar"]
  return {
    policy,
    speculate,
    id: String(instance.id),
    family: instance.family,
    fresh: instance.requests.filter((request) => request.new).length,
    profit: answer.feasible ? answer.profit : -1,
    chain: proven(known.optimum[speculate ? "chain_sd" : "chain_ar"]),
    edf: proven(known.optimum.edf_ar),
    violations,
    lateTokens,
    us: quantile(
      answers.map(({ us }) => us),
      0.5,
    ),
    publishedUs: published?.us ?? (published?.status === "timeout" ? TIMEOUT_US : null),
  }
}

function proven(optimum: Optimum | undefined): number | null {
  if (!optimum?.proven) return null
  return optimum.feasible === false ? -1 : (optimum.profit ?? -1)
}

function report(rows: readonly Row[]): string {
  const parts: string[] = []
  for (const policy of policies) {
    for (const speculate of [false, true]) {
      const mine = rows.filter((row) => row.policy === policy && row.speculate === speculate)
      const table = new Table({
        head: [
          "group",
          "n",
          "profit",
          "chain",
          "<chain",
          ">chain",
          "edf",
          "invalid",
          "late",
          "p50 µs",
          "p99 µs",
          "C++ p50 µs",
          "×",
        ],
        style: { head: [], border: [] },
      })
      for (const family of [...new Set(mine.map((row) => row.family))])
        table.push(
          summary(
            family,
            mine.filter((row) => row.family === family),
          ),
        )
      SIZES.forEach((size, i) => {
        const group = mine.filter((row) => row.fresh <= size && row.fresh > (SIZES[i - 1] ?? 0))
        if (group.length > 0) table.push(summary(`≤ ${size} new`, group))
      })
      table.push(summary("all", mine))
      parts.push(`${policy}${speculate ? ", speculative" : ""}\n${table.toString()}`)
    }
  }
  return parts.join("\n\n")
}

/** Profits are compared where the optimum is proven. Late tokens of speculation come within a step on pace. */
function summary(name: string, rows: readonly Row[]): string[] {
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + Math.max(0, b), 0)
  const decided = rows.filter((row) => row.chain !== null)
  const withEdf = rows.filter((row) => row.edf !== null)
  const timed = rows.filter((row) => row.publishedUs !== null)
  const percent = (a: number, b: number) => (b === 0 ? "–" : `${((100 * a) / b).toFixed(1)}%`)
  const at = (values: number[], q: number) => (values.length === 0 ? "–" : quantile(values, q).toFixed(0))
  return [
    name,
    `${rows.length}`,
    sum(rows.map((row) => row.profit)).toFixed(1),
    percent(sum(decided.map((row) => row.profit)), sum(decided.map((row) => row.chain!))),
    `${decided.filter((row) => row.profit < row.chain! - 1e-6).length}`,
    `${decided.filter((row) => row.profit > row.chain! + 1e-6).length}`,
    percent(sum(withEdf.map((row) => row.profit)), sum(withEdf.map((row) => row.edf!))),
    `${rows.filter((row) => row.violations.length > 0).length}`,
    `${rows.reduce((total, row) => total + row.lateTokens, 0)}`,
    at(
      rows.map((row) => row.us),
      0.5,
    ),
    at(
      rows.map((row) => row.us),
      0.99,
    ),
    at(
      timed.map((row) => row.publishedUs!),
      0.5,
    ),
    at(
      timed.map((row) => row.publishedUs! / row.us),
      0.5,
    ),
  ]
}
