/** A real engine whose step hangs under load: how soon clients are answered and `/ready` turns 503, against the watchdog's
 * bound, how soon all is well once the step ends, and how a server ends while it hangs. Prints JSON; exit code 1 when one
 * takes longer than twice the bound. */
import { setTimeout as sleep } from "node:timers/promises"
import { Command } from "commander"
import { numberIn, port, wholeNumber } from "../../src/cli/numbers.ts"
import { counters, idle, type Served, startServer, total } from "./served.ts"

const HANG = new URL("hang.ts", import.meta.url).href
/** Each with a long answer; half of them stream. */
const CLIENTS = 16

interface Result {
  clientsAnsweredMs: number[]
  readyTurned503Ms: number
  statuses: Record<string, number>
  backMs: number
  afterwards: { answered: number; live: number; engineUp: number; trips: number; downSec: number }
}

async function main(): Promise<void> {
  const options = new Command("bench/robust/hung-step.ts")
    .option("--model <name>", "as for serve", "tiny")
    .option("--step-timeout <s>", "the watchdog's bound", numberIn(0.1, 600), 2)
    .option("--times <n>", "the step hangs so often", wholeNumber(1, 100), 3)
    .option("--port <n>", "of the server", port, 18430)
    .parse()
    .opts<{ model: string; stepTimeout: number; times: number; port: number }>()
  const boundMs = options.stepTimeout * 1000
  const more = ["--step-timeout", String(options.stepTimeout), "--drain-timeout", "5"]
  const served = await startServer(options.model, options.port, more, ["--import", HANG])
  const results: Result[] = []
  for (let i = 0; i < options.times; i++) results.push(await hang(served, boundMs))
  const stop = await stopWhileHung(served)
  console.log(JSON.stringify({ model: options.model, boundMs, results, stop }, null, 2))
  const late = results.some((result) =>
    [...result.clientsAnsweredMs, result.readyTurned503Ms].some((ms) => ms > 2 * boundMs),
  )
  if (late) process.exitCode = 1
}

async function hang(served: Served, boundMs: number): Promise<Result> {
  const statuses: Record<string, number> = {}
  let fromMs = 0
  const clients = Array.from({ length: CLIENTS }, async (_, i) => {
    const response = await ask(served, { max_tokens: 3000, ignore_eos: true, stream: i % 2 === 0 })
    const text = await response.text()
    const code = /"code":"(\w+)"/.exec(text)?.[1] ?? "none"
    const key = `${response.status} ${code}`
    statuses[key] = (statuses[key] ?? 0) + 1
    return Math.round(performance.now() - fromMs)
  })
  await until(async () => total(await counters(served), "vllm:num_requests_running") > 0)
  fromMs = performance.now()
  process.kill(served.server.pid, "SIGUSR2")
  const readyTurned503 = until(async () => (await ready(served)) === 503).then(
    () => performance.now() - fromMs,
  )
  const clientsAnsweredMs = await Promise.all(clients)
  const readyTurned503Ms = Math.round(await readyTurned503)
  await sleep(boundMs)
  const lateMs = performance.now()
  process.kill(served.server.pid, "SIGUSR2")
  await until(async () => (await ready(served)) === 200)
  const backMs = Math.round(performance.now() - lateMs)
  let answered = 0
  await Promise.all(
    Array.from({ length: CLIENTS }, async () => {
      const response = await ask(served, { max_tokens: 8, ignore_eos: true })
      const { usage } = (await response.json()) as { usage?: { completion_tokens: number } }
      if (usage?.completion_tokens === 8) answered++
    }),
  )
  await idle(served, 5000)
  const now = await counters(served)
  const afterwards = {
    answered,
    live: total(now, "vllm:num_requests_running") + total(now, "vllm:num_requests_waiting"),
    engineUp: total(now, "slos_serve_engine_up"),
    trips: total(now, "slos_serve_watchdog_trips_total"),
    downSec: total(now, "slos_serve_engine_down_seconds_total"),
  }
  return { clientsAnsweredMs: extremes(clientsAnsweredMs), readyTurned503Ms, statuses, backMs, afterwards }
}

/** SIGTERM while a step hangs that the watchdog has not found yet. */
async function stopWhileHung(served: Served) {
  const answer = ask(served, { max_tokens: 3000, ignore_eos: true }).then((response) => response.status)
  await until(async () => total(await counters(served), "vllm:num_requests_running") > 0)
  process.kill(served.server.pid, "SIGUSR2")
  const fromMs = performance.now()
  const { exited } = served.server
  process.kill(served.server.pid, "SIGTERM")
  const [code, signal] = await exited
  return { stopMs: Math.round(performance.now() - fromMs), code, signal, clientGot: await answer }
}

const ask = ({ server }: Served, fields: object) =>
  fetch(`${server.target.url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: "Tell me all.", ...fields }),
  })
const ready = async ({ server }: Served) => (await fetch(`${server.target.url}/ready`)).status

async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await sleep(20)
}

const extremes = (values: readonly number[]) => [Math.min(...values), Math.max(...values)]

await main()
