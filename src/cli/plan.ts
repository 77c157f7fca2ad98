/** `slos-serve plan`: which requests of an admission instance to accept, and the schedule that serves them. */
import { createReadStream } from "node:fs"
import { createInterface } from "node:readline"
import { type Command, Option } from "commander"
import type { PolicyName } from "../core/policy/index.ts"
import { UserError } from "../errors.ts"
import { NoEnd } from "../instances/forward.ts"
import { readInstance } from "../instances/instance.ts"
import { Solver } from "../instances/solve.ts"
import { fraction } from "./numbers.ts"

interface PlanOptions {
  policy: PolicyName
  speculate: "off" | "on"
  margin: number
  file?: string
}

const EXAMPLES = `
Examples:
  $ slos-serve plan --policy slos-serve-paper --file instances.jsonl
  $ zcat instances.jsonl.gz | slos-serve plan --speculate on > plans.jsonl

Each line in is one instance (JSON); each line out is its answer:
  {"id","feasible","accepted":[ids of new requests],"profit","us","batches":[{"t","p":[[id,tokens]],"d":{"1":"0-3,7"}}]}
Batches run back to back from the instance's now: t seconds, p prefill tokens, d decode tokens per request → ids.
"next" on the last batch jumps back for ever (-1: that batch again).`

export function register(program: Command): void {
  program
    .command("plan")
    .description("decide admission instances: which requests are accepted, and in which batches they run")
    .addOption(
      new Option("--policy <name>", "scheduling policy")
        .choices(["slos-serve", "slos-serve-paper"])
        .default("slos-serve"),
    )
    .addOption(
      new Option("--speculate <which>", "speculative decoding").choices(["off", "on"]).default("off"),
    )
    .option("--margin <share>", "added to every predicted batch time", fraction, 0)
    .option("-f, --file <file>", "instances as JSON lines (default: stdin)")
    .addHelpText("after", EXAMPLES)
    .action(plan)
}

async function plan({ policy, speculate, margin, file }: PlanOptions): Promise<void> {
  const solver = new Solver({ policy, speculate: speculate === "on", margin }, () => performance.now() * 1000)
  const source = file ?? "stdin"
  const input = file === undefined ? process.stdin : createReadStream(file)
  let line = 0
  let answered = 0
  try {
    for await (const text of createInterface({ input, crlfDelay: Infinity })) {
      line++
      // trim() also takes the byte order mark that some programs begin a file with.
      if (text.trim() === "") continue
      const instance = readInstance(text.trim(), source, line)
      const { feasible, accepted, profit, us, batches } = solver.solve(instance)
      const answer = { id: instance.id, feasible, accepted, profit, us: Math.round(us * 10) / 10, batches }
      await write(`${JSON.stringify(answer)}\n`)
      answered++
    }
  } catch (error) {
    if (error instanceof NoEnd) throw new UserError(`${source}, line ${line}: ${error.message}`)
    if (error instanceof Error && "code" in error && "syscall" in error && file !== undefined)
      throw new UserError(`cannot read ${file} (${String(error.code)}); check --file`)
    throw error
  }
  if (answered === 0) throw new UserError(`${source} is empty; give one instance per line, as JSON`)
}

/** Waits until it is written, so that a slow reader is not run ahead of. Failures are main.ts's. */
function write(text: string): Promise<void> {
  return new Promise((resolve) =>
    process.stdout.write(text, (error) => {
      if (!error) resolve()
    }),
  )
}
