/** Requests whose client resets the connection at once: none may run on, and none may hold a shutdown. Prints JSON;
 * exit code 1 when one does. */
import { setTimeout as sleep } from "node:timers/promises"
import { Command } from "commander"
import { port, wholeNumber } from "../../src/cli/numbers.ts"
import { counters, idle, rawCompletion, sent, startServer, total } from "./served.ts"

/** Long enough that a request that runs on is still there when it is looked for. */
const ENDLESS = { max_tokens: 4000, ignore_eos: true }
/** A server that works through its backlog on a busy machine gets this long; what runs on until then has ended by itself,
 * which is counted. */
const END_MS = 60_000
/** What was not read yet when all was idle comes within this time. */
const BACKLOG_MS = 1000
const WAVE = 50

async function main(): Promise<void> {
  const options = new Command("bench/robust/resets.ts")
    .option("--model <name>", "fake, or as for serve", "fake")
    .option("--requests <n>", "resets of each time", wholeNumber(1, 100_000), 300)
    .option("--times <n>", "times, each with a server of its own", wholeNumber(1, 100), 3)
    .option("--port <n>", "of the server", port, 18410)
    .parse()
    .opts<{ model: string; requests: number; times: number; port: number }>()
  const results = []
  for (let time = 0; time < options.times; time++)
    results.push(await once(options.model, options.requests, options.port + time))
  console.log(JSON.stringify({ model: options.model, results }, null, 2))
  if (results.some(({ ranOn, idleMs }) => ranOn > 0 || idleMs === null)) process.exitCode = 1
}

async function once(model: string, requests: number, onPort: number) {
  const served = await startServer(model, onPort)
  const reset = async (i: number) => {
    const socket = await sent(served, rawCompletion({ ...ENDLESS, stream: i % 2 === 0 }))
    // At once, in the next round of the event loop, or when the request has just begun.
    if (i % 3 > 0) await sleep(i % 3 === 1 ? 0 : 3)
    socket.resetAndDestroy()
  }
  // Many at a time: the server then reads requests and their resets in one round of its event loop.
  for (let first = 0; first < requests; first += WAVE)
    await Promise.all(Array.from({ length: Math.min(WAVE, requests - first) }, (_, i) => reset(first + i)))
  let idleMs = await idle(served, END_MS)
  await sleep(BACKLOG_MS)
  if (idleMs !== null && (await idle(served, END_MS)) === null) idleMs = null
  const after = await counters(served)
  const ended = (reason: string) => total(after, "vllm:request_success_total", `"${reason}"`)
  const from = performance.now()
  await served.server.stop()
  return {
    requests,
    /** The others were gone before the scheduler heard of them. */
    cancelled: ended("abort"),
    ranOn:
      total(after, "vllm:num_requests_running") +
      total(after, "vllm:num_requests_waiting") +
      ended("length") +
      ended("stop"),
    idleMs,
    stopMs: Math.round(performance.now() - from),
  }
}

await main()
