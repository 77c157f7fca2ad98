/** guidellm's figures of a run beside what the server itself says of the same requests: node bench/harness/guidellm.ts [serve's options,
 * in place of --engine fake]. Installs guidellm into the cache folder (5 GB: it wants torch), once. Wants quiet cores. */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { freePorts } from "../../src/free-port.ts"
import { Random } from "../../src/random.ts"
import { pythonEnvironment, requirements } from "../../test/python-environment.ts"
import { Server } from "../real/servers.ts"

const HERE = import.meta.dirname
const MAIN = resolve(HERE, "../../src/cli/main.ts")
const REQUESTS = 60
const RATE_PER_SEC = 2
const WORDS =
  "a quiet morning in the harbour where boats wait for the tide and the wind has not come yet".split(" ")
const say = (line: string) => console.error(`guidellm: ${line}`)

interface Told {
  response_id: string
  time_to_first_token_ms: number
  inter_token_latency_ms: number
  /** Seconds. */
  request_latency: number
  prompt_tokens: number
  output_tokens: number
}

/** Lines of a data set: prompts long enough that a first token takes a while, answers of a given length. */
function prompts(): string {
  const random = new Random(3)
  const between = (from: number, to: number) => from + Math.floor(random.uniform() * (to - from))
  return Array.from({ length: REQUESTS }, (_, i) => {
    const words = Array.from({ length: between(150, 400) }, () => WORDS[between(0, WORDS.length)])
    return `${JSON.stringify({ prompt: `${i} ${words.join(" ")}`, output_tokens_count: between(20, 60) })}\n`
  }).join("")
}

async function run(python: string, url: string, folder: string): Promise<Told[]> {
  const [data, report] = [join(folder, "prompts.jsonl"), join(folder, "report.json")]
  writeFileSync(data, prompts())
  const args = [
    ...["run", "--backend", `kind=openai_http,target=${url},request_format=/v1/completions,http2=false`],
    ...["--data", `kind=json_file,path=${data}`, "--profile", `kind=poisson,rate=${RATE_PER_SEC}`],
    ...["--constraint", `kind=max_requests,count=${REQUESTS}`, "--output", `kind=json,path=${report}`],
  ]
  // One process that sends: each of its ten would load torch first.
  const env = { ...process.env, HF_HUB_OFFLINE: "1", GUIDELLM__MAX_WORKER_PROCESSES: "1" }
  const child = spawn(join(python, "../guidellm"), args, { stdio: ["ignore", "ignore", "inherit"], env })
  const [status] = await once(child, "close")
  if (status !== 0) throw new Error(`guidellm ended with ${status}`)
  const { benchmarks } = JSON.parse(readFileSync(report, "utf8")) as {
    benchmarks: { requests: { successful: Told[] } }[]
  }
  return benchmarks[0]!.requests.successful
}

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0)

/** Each figure by guidellm, and by the server's `/metrics`. */
async function compare(told: readonly Told[], url: string): Promise<void> {
  const text = await (await fetch(`${url}/metrics`)).text()
  const metric = (name: string) => Number(new RegExp(`^vllm:${name}\\{[^}]*\\} (\\S+)`, "m").exec(text)![1])
  const meanMs = (name: string) => (1000 * metric(`${name}_seconds_sum`)) / metric(`${name}_seconds_count`)
  const mean = (of: (one: Told) => number) => sum(told.map(of)) / told.length
  const gaps = sum(told.map((one) => one.output_tokens - 1))
  const rows: [string, number, number][] = [
    ["TTFT, ms", mean((one) => one.time_to_first_token_ms), meanMs("time_to_first_token")],
    [
      "between tokens, ms",
      sum(told.map((one) => one.inter_token_latency_ms * (one.output_tokens - 1))) / gaps,
      meanMs("inter_token_latency"),
    ],
    ["whole answer, ms", 1000 * mean((one) => one.request_latency), meanMs("e2e_request_latency")],
    ["prompt tokens", sum(told.map((one) => one.prompt_tokens)), metric("prompt_tokens_total")],
    ["output tokens", sum(told.map((one) => one.output_tokens)), metric("generation_tokens_total")],
  ]
  console.log(`| ${told.length} requests | guidellm | server | difference |\n| --- | --- | --- | --- |`)
  for (const [name, theirs, ours] of rows)
    console.log(
      `| ${name} | ${theirs.toFixed(2)} | ${ours.toFixed(2)} | ${(100 * (theirs / ours - 1)).toFixed(2)}% |`,
    )
}

/** By the ids that both know: what the first token took outside the server. */
async function outside(told: readonly Told[], url: string): Promise<void> {
  const listed = await (await fetch(`${url}/v1/slo/requests?limit=1000`)).json()
  const { requests } = listed as { requests: { id: string; time_to_first_token_ms: number }[] }
  const own = new Map(requests.map((one) => [`cmpl-${one.id}`, one.time_to_first_token_ms]))
  const extra = told
    .map((one) => one.time_to_first_token_ms - own.get(one.response_id)!)
    .sort((a, b) => a - b)
  const at = (share: number) => extra[Math.floor(share * (extra.length - 1))]!.toFixed(1)
  console.log(`\nThe first token, outside the server: median ${at(0.5)} ms, p90 ${at(0.9)} ms`)
}

const recipe = requirements("guidellm", join(HERE, "requirements.txt"), "about 5 GB, some minutes")
const { python } = pythonEnvironment(recipe, say)
const folder = mkdtempSync(join(tmpdir(), "slos-serve-guidellm-"))
const [port] = await freePorts(1)
const options = process.argv.length > 2 ? process.argv.slice(2) : ["--engine", "fake"]
const command = [process.execPath, MAIN, "serve", "--port", String(port), ...options]
const system = { name: "slos-serve", kind: "slos-serve" } as const
const server = await Server.start(system, command, port!, join(folder, "server.log"))
try {
  await server.ready(300_000)
  const told = await run(python, server.target.url, folder)
  await compare(told, server.target.url)
  await outside(told, server.target.url)
} finally {
  await server.stop()
  rmSync(folder, { recursive: true })
}
