/** What the planner process adds to a step of vLLM: a client plays the plug-in over a real Unix socket, with so many requests
 * running, some of which end and come with every step. Synchronous (the engine waits for each plan), and one step ahead (the plan
 * is made while the engine computes). The planner is a process of its own, on a real clock. */
import { type ChildProcess, fork } from "node:child_process"
import { writeFileSync } from "node:fs"
import { createConnection } from "node:net"
import { cpus, tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { setFlagsFromString } from "node:v8"
import Table from "cli-table3"
import { Command } from "commander"
import { quantile } from "simple-statistics"
import { numberIn, wholeNumber } from "../src/cli/numbers.ts"
import { HEAP_GROWTH } from "../src/cli/serve-parts.ts"
import { defaultSloClasses } from "../src/config/slo-classes.ts"
import type { PolicyName } from "../src/core/policy/index.ts"
import { listenAt } from "../src/planner-process/listen.ts"
import { PlannerProcess } from "../src/planner-process/planner-process.ts"
import { PlannerTenants } from "../src/planner-process/planner-tenants.ts"
import { StepTimes } from "../src/planner-process/step-times.ts"
import { ENGINE } from "../src/planner-process/testing.ts"
import { Service } from "../src/serve/service.ts"
import { encodeFrame, FrameReader } from "../src/wire/frames.ts"
import { columnOf } from "../src/wire/planner/columns.ts"
import {
  type Arrived,
  type Landed,
  type PlanMessage,
  plannerHello,
  readToPlugin,
  type StepMessage,
  type ToPlanner,
  toWire,
} from "../src/wire/planner/messages.ts"

interface Options {
  running: number[]
  steps: number
  policy: PolicyName
  stepMs: number
  out?: string
  profile?: boolean
}

/** A GPU: a step takes 8 ms, and 10 µs a token; the planner finds that out. */
const STEP_US = 8000
const TOKEN_US = 10
const PROMPT_TOKENS = 300
const OUTPUT_TOKENS = 200
const WARM_STEPS = 200
const CLASSES = ["chat", "code", "summarize", "tools"]

/** One engine at work. */
class Client {
  readonly #path: string
  readonly #running: number
  #write: (message: ToPlanner) => void = () => {}
  #onPlan: (plan: PlanMessage) => void = () => {}
  #close = () => {}
  /** Output so far. */
  readonly #output = new Map<number, number>()
  readonly #prompt = new Map<number, number>()
  #arrived: Arrived[] = []
  #landed: Landed[] = []
  #seq = 0
  #nextId = 1
  /** Time of reading and checking the last plan, ms. */
  readMs = 0
  writeMs = 0

  constructor(path: string, running: number) {
    this.#path = path
    this.#running = running
  }

  connect(): Promise<void> {
    const socket = createConnection(this.#path)
    const reader = new FrameReader()
    this.#write = (message) => socket.write(encodeFrame(toWire(message)))
    this.#close = () => socket.destroy()
    return new Promise((done, fail) => {
      socket.on("error", fail)
      socket.on("data", (piece: Buffer) => {
        const atMs = performance.now()
        for (const frame of reader.push(piece)) {
          const message = readToPlugin(frame)
          if (message.type === "plan") {
            this.readMs = performance.now() - atMs
            this.#onPlan(message)
          } else if (message.type === "ready") done()
          else if (message.type !== "hello") fail(new Error(message.message))
        }
      })
      this.#write(plannerHello())
      this.#write({
        ...ENGINE,
        name: `engine-${this.#running}-${Math.random()}`,
        limits: {
          ...{ kvTokens: 4_000_000, blockTokens: 16, maxSequences: 2 * this.#running, contextTokens: 8192 },
          ...{ maxBatchTokens: 4096, minChunkTokens: 16 },
        },
      })
    })
  }

  close(): void {
    this.#close()
  }

  /** Tells of the step that `plan` was, and answers with the next plan. */
  tell(plan: PlanMessage | null, nowUs: number): Promise<PlanMessage> {
    while (this.#output.size < this.#running) this.#come()
    const seq = ++this.#seq
    const message: StepMessage = {
      ...{ type: "step", seq, nowUs, landed: this.#landed, arrived: this.#arrived },
      ran: plan === null || plan.batch === 0 ? null : { batch: plan.batch, atUs: nowUs, exact: true },
    }
    this.#landed = []
    this.#arrived = []
    return new Promise((done) => {
      this.#onPlan = done
      const atMs = performance.now()
      this.#write(message)
      this.writeMs = performance.now() - atMs
    })
  }

  /** The step of the last message has been computed. */
  land(plan: PlanMessage, atUs: number, durationUs: number): void {
    const { ids } = plan
    const produced = new Float64Array(ids.length)
    const stopped: number[] = []
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]!
      const output = this.#output.get(id)
      const reached = plan.positions[i]! + plan.tokens[i]!
      if (output === undefined || reached < this.#prompt.get(id)! + output) continue
      produced[i] = 1
      // Ends are as if by chance, but the same each time.
      if (output >= OUTPUT_TOKENS / 2 && (id * 7919 + output * 104_729) % OUTPUT_TOKENS < 2) {
        stopped.push(id)
        this.#output.delete(id)
        this.#prompt.delete(id)
      } else this.#output.set(id, output + 1)
    }
    const isUsual = produced.every((count) => count === 1)
    this.#landed.push({
      ...{ step: this.#seq, atUs, durationUs, ...(!isUsual && { ids, produced }) },
      ...(stopped.length > 0 && { stopped: columnOf(stopped) }),
    })
  }

  #come(): void {
    const id = this.#nextId++
    const promptTokens = PROMPT_TOKENS + ((id * 37) % 200)
    this.#output.set(id, 0)
    this.#prompt.set(id, promptTokens)
    this.#arrived.push({
      ...{ id, ageUs: 500, promptTokens, maxOutputTokens: 4 * OUTPUT_TOKENS, lora: null },
      slo: { slo_class: CLASSES[id % CLASSES.length] },
      prefix: columnOf(Array.from({ length: Math.floor(promptTokens / 16) }, (_, i) => id * 1000 + i)),
      waitsForGrammar: false,
    })
  }
}

interface Measured {
  running: number
  mode: "synchronous" | "one step ahead"
  /** Requests in a step, mean. */
  planned: number
  /** The engine waits so long, ms. */
  addedP50: number
  addedP99: number
  /** From the message to its plan, ms. */
  answerP50: number
  answerP99: number
  /** Share of the steps whose plan was not there in time. */
  late: number
}

const micros = () => Math.round(performance.now() * 1000)

async function measure(
  path: string,
  running: number,
  mode: Measured["mode"],
  options: Options,
): Promise<Measured> {
  const client = new Client(path, running)
  await client.connect()
  const added: number[] = []
  const answers: number[] = []
  let late = 0
  let planned = 0
  // Synchronous steps are computed in no time, on a clock of their own.
  let clockUs = micros()
  let plan = await client.tell(null, clockUs)
  for (let step = 0; step < WARM_STEPS + options.steps; step++) {
    if (step === WARM_STEPS) {
      added.length = answers.length = 0
      late = planned = 0
    }
    planned += plan.ids.length
    const startUs = micros()
    const durationUs = STEP_US + TOKEN_US * plan.tokens.reduce((sum, tokens) => sum + tokens, 0)
    const computedMs = options.stepMs > 0 ? options.stepMs : durationUs / 1000
    const current = plan
    if (mode === "synchronous") {
      // The engine stands still until the plan is there: time that no step hides.
      const atMs = performance.now()
      plan = await client.tell(current, clockUs)
      added.push(performance.now() - atMs)
      answers.push(performance.now() - atMs)
      clockUs += durationUs
      client.land(current, clockUs, durationUs)
      continue
    }
    const atMs = performance.now()
    let answeredMs = 0
    let readMs = 0
    const next = client.tell(current, startUs).then((answer) => {
      answeredMs = performance.now()
      readMs = client.readMs
      return answer
    })
    const { writeMs } = client
    await sleep(computedMs)
    const endMs = performance.now()
    client.land(current, micros(), micros() - startUs)
    plan = await next
    if (answeredMs > endMs) late++
    // Written before the step, read after it, and what it had to be waited for.
    added.push(writeMs + readMs + Math.max(0, answeredMs - endMs))
    answers.push(answeredMs - atMs)
  }
  client.close()
  const [addedP50, addedP99] = [0.5, 0.99].map((q) => quantile(added, q)) as [number, number]
  const [answerP50, answerP99] = [0.5, 0.99].map((q) => quantile(answers, q)) as [number, number]
  return {
    ...{ running, mode, planned: planned / options.steps, addedP50, addedP99, answerP50, answerP99 },
    late: late / options.steps,
  }
}

/** The planner, in a process of its own. */
async function serve(path: string, policy: PolicyName): Promise<void> {
  setFlagsFromString(HEAP_GROWTH)
  const log = (message: string, level: string) =>
    void (level === "error" && process.stderr.write(`${message}\n`))
  const tenants = new PlannerTenants({})
  const classes = defaultSloClasses()
  const planner = new PlannerProcess({
    ...{
      classes,
      tenants,
      policy,
      policyOptions: {},
      maxLagUs: 5000,
      version: "bench",
      recording: null,
      log,
    },
    stepTimesOf: (engine) => new StepTimes(engine, { cacheDir: null, log }),
  })
  // With the metrics that it has in service.
  new Service({ front: planner.front, classes, policy, tenants: tenants.all })
  await listenAt(path, (socket) => planner.connect(socket))
  // In order, so that a profile is written.
  process.on("message", () => process.exit(0))
  process.send!("ready")
}

function start(path: string, { policy, profile }: Options): Promise<ChildProcess> {
  const execArgv = profile ? ["--cpu-prof", "--cpu-prof-dir=planner-profile"] : []
  const child = fork(import.meta.filename, ["serve", path, policy], { execArgv })
  return new Promise((done) => child.once("message", () => done(child)))
}

async function main(options: Options): Promise<void> {
  const path = join(tmpdir(), `planner-bench-${process.pid}.sock`)
  const child = await start(path, options)
  const rows: Measured[] = []
  for (const running of options.running)
    for (const mode of ["synchronous", "one step ahead"] as const)
      rows.push(await measure(path, running, mode, options))
  child.send("over")
  const table = new Table({
    head: ["running", "mode", "in a step", "added ms p50", "p99", "answer ms p50", "p99", "late"],
  })
  const ms = (value: number) => value.toFixed(3)
  for (const row of rows)
    table.push([
      ...[row.running, row.mode, row.planned.toFixed(0), ms(row.addedP50), ms(row.addedP99)],
      ...[ms(row.answerP50), ms(row.answerP99), `${(100 * row.late).toFixed(1)}%`],
    ])
  process.stdout.write(`${table.toString()}\n`)
  const machine = { node: process.version, cpu: cpus()[0]?.model ?? "", cores: cpus().length }
  if (options.out !== undefined)
    writeFileSync(options.out, `${JSON.stringify({ machine, options, rows }, null, 2)}\n`)
}

if (process.argv[2] === "serve") await serve(process.argv[3]!, process.argv[4] as PolicyName)
else {
  const sizes = (text: string) => text.split(",").map(wholeNumber(1, 10_000))
  const options = new Command("bench/planner-socket.ts")
    .description("what the planner process adds to a step of vLLM, over its socket")
    .option("--running <list>", "requests running at once", sizes, [64, 256, 1024])
    .option("--steps <n>", "steps measured of each", wholeNumber(10, 1e6), 1000)
    .option("--policy <name>", "scheduling policy", "slos-serve")
    .option(
      "--step-ms <ms>",
      "time of the engine's step, one step ahead; 0: as its cost model says",
      numberIn(0, 1e4),
      0,
    )
    .option("--profile", "a CPU profile of the planner into ./planner-profile")
    .option("--out <file>", "write the figures as JSON")
    .parse()
    .opts<Options>()
  await main(options)
}
