/** A tenant of a real server, one request a second, alone and beside another that sends hundreds at once: with keys, and
 * without, where both are one tenant. Prints JSON; exit code 1 when it keeps less beside the flood than alone. */

import { Agent, request } from "node:http"
import { loadavg } from "node:os"
import { setTimeout as sleep } from "node:timers/promises"
import { Command } from "commander"
import { port, wholeNumber } from "../../src/cli/numbers.ts"
import { counters, startServer, total } from "./served.ts"

interface Options {
  model: string
  seconds: number
  flood: number
  everyS: number
  words: number
  tokens: number
  ttftMs: number
  tpotMs: number
  port: number
}

interface Answer {
  status: number
  kept: boolean
  ttftMs: number | null
}

/** Whether it is ready is asked without a key. */
const KEYS = ["--no-require-key", "--tenant", "a=key-a", "--tenant", "b=key-b"]
/** What is live when the time is over gets so long. */
const END_MS = 60_000

async function main(): Promise<void> {
  const options = new Command("bench/robust/flood.ts")
    .option("--model <name>", "fake, or as for serve", "fake")
    .option("--seconds <n>", "of each part", wholeNumber(1, 3600), 60)
    .option("--flood <n>", "requests that A sends at once", wholeNumber(1, 10_000), 300)
    .option("--every-s <n>", "between two floods", wholeNumber(1, 3600), 5)
    .option(
      "--words <n>",
      "of each of A's prompts; B's have twice as many, and would be turned down first of one tenant's",
      wholeNumber(1, 2000),
      60,
    )
    .option("--tokens <n>", "of each answer", wholeNumber(1, 2000), 50)
    .option("--ttft-ms <n>", "objective of all", wholeNumber(1, 600_000), 1000)
    .option("--tpot-ms <n>", "objective of all", wholeNumber(1, 60_000), 100)
    .option("--port <n>", "of the server", port, 18430)
    .parse()
    .opts<Options>()
  const parts = [
    await part("B alone", options, { keys: true, flood: false }),
    await part("B beside A", options, { keys: true, flood: true }),
    await part("B beside A, one tenant", options, { keys: false, flood: true }),
  ]
  console.log(
    JSON.stringify(
      { options, loadAverage: loadavg().map((load) => Number(load.toFixed(1))), parts },
      null,
      1,
    ),
  )
  if (parts[1]!.b.kept < parts[0]!.b.kept) process.exitCode = 1
}

async function part(name: string, options: Options, { keys, flood }: { keys: boolean; flood: boolean }) {
  const served = await startServer(options.model, options.port, keys ? KEYS : [])
  const over = new AbortController()
  const agent = new Agent({ keepAlive: true, maxSockets: Infinity })
  const send = (tenant: string, index: number) =>
    complete(agent, options, { tenant, index, signal: over.signal })
  const answers: Record<"a" | "b", Promise<Answer>[]> = { a: [], b: [] }
  for (let second = 0; second < options.seconds; second++) {
    const began = performance.now()
    if (flood && second % options.everyS === 0)
      for (let i = 0; i < options.flood; i++) answers.a.push(send("a", second * options.flood + i))
    // Not with the flood: when it has arrived.
    await sleep(500)
    answers.b.push(send("b", second))
    await sleep(Math.max(0, 1000 - (performance.now() - began)))
  }
  const b = await Promise.race([Promise.all(answers.b), sleep(END_MS).then(() => null)])
  over.abort()
  const [ofA, ofB] = [await Promise.all(answers.a), b ?? (await Promise.all(answers.b))]
  const after = await counters(served)
  const figures = ["a", "b"].map((tenant) => total(after, "slos_serve_tenant_tokens_total", `"${tenant}"`))
  await served.server.stop()
  agent.destroy()
  return { name, b: summary(ofB), a: summary(ofA), tokens: keys ? figures : null }
}

function summary(answers: readonly Answer[]) {
  const ttfts = answers.flatMap(({ ttftMs }) => ttftMs ?? []).sort((x, y) => x - y)
  return {
    sent: answers.length,
    kept: answers.filter(({ kept }) => kept).length,
    refused: answers.filter(({ status }) => status === 429).length,
    /** Not answered when all of B's were, or a minute after the last was sent. */
    unanswered: answers.filter(({ status }) => status === 0).length,
    ttftMedianMs: ttfts[ttfts.length >> 1] ?? null,
    ttftWorstMs: ttfts.at(-1) ?? null,
  }
}

function complete(
  agent: Agent,
  { port: onPort, words, tokens, ttftMs, tpotMs }: Options,
  { tenant, index, signal }: { tenant: string; index: number; signal: AbortSignal },
): Promise<Answer> {
  // Begins with what no other does: nothing is shared.
  const prompt = `${tenant}${index}${" word".repeat(tenant === "b" ? 2 * words : words)}`
  const slo = { ttft_ms: ttftMs, tpot_ms: tpotMs }
  const body = JSON.stringify({ prompt, max_tokens: tokens, ignore_eos: true, slo })
  const headers = {
    ...{ "content-type": "application/json", "content-length": String(Buffer.byteLength(body)) },
    authorization: `Bearer key-${tenant}`,
  }
  return new Promise((resolve) => {
    const none = () => resolve({ status: 0, kept: false, ttftMs: null })
    const sent = request(
      { port: onPort, host: "127.0.0.1", path: "/v1/completions", method: "POST", agent, headers, signal },
      (response) => {
        let text = ""
        response.on("data", (data) => (text += data))
        response.on("error", none)
        response.on("end", () => {
          const status = response.statusCode!
          if (status !== 200) return resolve({ status, kept: false, ttftMs: null })
          const { metrics } = JSON.parse(text)
          resolve({ status, kept: metrics.slo.attained, ttftMs: metrics.time_to_first_token_ms })
        })
      },
    )
    sent.on("error", none)
    sent.end(body)
  })
}

await main()
