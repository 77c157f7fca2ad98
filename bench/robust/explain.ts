/** A real server under more than it can do: what it says of each miss (GET /v1/slo/requests?missed) against the latency that the client's
 * own clock saw, and the named cause against the decisions beside it. Prints JSON; exit code 1 when parts are off or a cause is not borne out. */
import { Agent, request } from "node:http"
import { loadavg } from "node:os"
import { setTimeout as sleep } from "node:timers/promises"
import { Command } from "commander"
import { numberIn, port, wholeNumber } from "../../src/cli/numbers.ts"
import type { AnswerJson } from "../../src/explain/json.ts"
import { startServer } from "./served.ts"

interface Options {
  model: string
  requests: number
  rate: number
  replicas: number
  policy: string
  port: number
}

/** Of one latency, sum of parts against what the client saw. */
const WITHIN = 0.05

async function main(): Promise<void> {
  const options = new Command("bench/robust/explain.ts")
    .option("--model <name>", "fake, or as for serve", "fake")
    .option("--requests <n>", "sent in all", wholeNumber(1, 100_000), 400)
    .option("--rate <n>", "a second", numberIn(0.1, 1000), 20)
    .option("--replicas <n>", "worker processes", wholeNumber(1, 16), 1)
    .option("--policy <name>", "scheduling policy", "slos-serve")
    .option("--port <n>", "of the server", port, 18440)
    .parse()
    .opts<Options>()
  const { model, replicas, policy } = options
  const served = await startServer(model, options.port, ["--replicas", String(replicas), "--policy", policy])
  const agent = new Agent({ keepAlive: true, maxSockets: Infinity })
  const sent: Promise<void>[] = []
  const seenMs = new Map<string, number>()
  for (let i = 0; i < options.requests; i++) {
    sent.push(complete(agent, options.port, i, seenMs))
    await sleep((-Math.log(1 - Math.random()) * 1000) / options.rate)
  }
  await Promise.all(sent)
  await sleep(200)
  const url = `http://127.0.0.1:${options.port}/v1/slo/requests?missed&limit=1000`
  const { requests } = (await (await fetch(url)).json()) as { requests: AnswerJson[] }
  await served.server.stop()
  agent.destroy()
  const checked = requests
    .filter(({ time }) => time !== null)
    .map((answer) => check(answer, seenMs.get(answer.id)!))
  const off = checked.map(({ offShare }) => Math.abs(offShare)).sort((a, b) => a - b)
  const codes = Map.groupBy(checked, ({ code }) => code)
  const unborne = checked.filter(({ borne }) => !borne)
  const result = {
    ...{ options, loadAverage: loadavg().map((load) => Number(load.toFixed(1))) },
    ...{ sent: options.requests, missed: checked.length, withinShare: WITHIN },
    within: off.filter((share) => share <= WITHIN).length,
    offMedian: off[off.length >> 1] ?? null,
    offWorst: off.at(-1) ?? null,
    causes: Object.fromEntries([...codes].map(([code, all]) => [code, all.length])),
    unborne: unborne.map(({ id }) => id),
  }
  console.log(JSON.stringify(result, null, 1))
  if (unborne.length > 0 || result.within < checked.length) process.exitCode = 1
}

/** Parts against the client's clock; and the cause against the log of decisions and the parts. */
function check({ id, time, reason, decisions, time_before_late, late_token }: AnswerJson, clientMs: number) {
  const sumMs = Object.values(time!).reduce((sum, ms) => sum + ms, 0)
  const code = reason?.code ?? "none"
  const down = decisions.findLast(({ what }) => what === "turned_down" || what === "came_back")
  const isDown = down?.what === "turned_down" && down.reason === "wont_fit" && down.bound !== "alone"
  const { prefill_ms = 0, decode_ms = 0, ...blamed } = time_before_late ?? {}
  const most = Object.entries({ ...blamed, own_work_ms: prefill_ms + decode_ms }).sort(
    ([, a], [, b]) => b - a,
  )[0]
  const borne =
    code === "turned_down"
      ? isDown
      : code === "revoked"
        ? down?.reason === "revoked"
        : `${code}_ms` === most?.[0]
  return { id, code, offShare: (clientMs - sumMs) / clientMs, borne: borne && late_token !== null }
}

function complete(agent: Agent, onPort: number, index: number, seenMs: Map<string, number>): Promise<void> {
  const slo =
    index % 3 === 0 ? { ttft_ms: 300, tpot_ms: 60 } : { ttft_ms: 1500, tpot_ms: 40, max_gap_ms: 500 }
  const prompt = `${index} ${"word ".repeat(20 + ((index * 37) % 200))}`
  const body = JSON.stringify({ prompt, max_tokens: 10 + ((index * 13) % 50), ignore_eos: true, slo })
  const id = `explain-${index}`
  return new Promise((resolve, reject) => {
    const beganMs = performance.now()
    const headers = { "content-type": "application/json", "x-request-id": id }
    const asked = request(
      { agent, host: "127.0.0.1", port: onPort, path: "/v1/completions", method: "POST", headers },
      (response) => {
        response.resume().on("end", () => {
          seenMs.set(id, performance.now() - beganMs)
          resolve()
        })
      },
    )
    asked.on("error", reject).end(body)
  })
}

await main()
