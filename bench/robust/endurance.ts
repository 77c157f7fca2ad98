/** A server under everything at once for as long as one likes: chats, streams, several answers, sessions, readers that are
 * slow or stop, cancels, resets, half-closed connections, floods past its queue, bad bodies. Prints JSON: memory over
 * time, and whether everything is back at zero in the end; exit code 1 when it is not. */
import { connect } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { Command } from "commander"
import { linearRegression } from "simple-statistics"
import { numberIn, port, wholeNumber } from "../../src/cli/numbers.ts"
import { Random } from "../../src/random.ts"
import { counters, idle, rawCompletion, type Served, sent, startServer, total } from "./served.ts"

/** Requests that the queue takes: a flood has more. */
const QUEUE = 200
const FLOOD = 300
const FLOOD_EVERY_MS = 20_000
/** An end that takes longer than this is none. */
const END_MS = 120_000
/** Longest pause of a client between its requests: those that go away at once would else be all the load there is. */
const PAUSE_MS = 1000
/** Memory of the first part of the time, in which heaps and caches find their size, is not judged. */
const SETTLING = 1 / 3

interface Tally {
  sent: number
  ends: Map<string, number>
}

type Behaviour = (served: Served, random: Random) => Promise<string>

/** What a client does, and of how many clients one does that. */
const BEHAVIOURS: Record<string, { clients: number; act: Behaviour }> = {
  whole: { clients: 8, act: (served, random) => answered(served, {}, random) },
  stream: { clients: 8, act: (served, random) => answered(served, { stream: true }, random) },
  several: {
    clients: 3,
    act: (served, random) =>
      answered(served, { n: random.integer(2, 9), stream: random.uniform() < 0.5 }, random),
  },
  session: { clients: 3, act: inSession },
  bestEffort: { clients: 3, act: (served, random) => answered(served, { service_tier: "flex" }, random) },
  cancels: { clients: 4, act: cancels },
  resets: { clients: 4, act: resets },
  halfClosed: { clients: 2, act: halfCloses },
  slowReader: { clients: 3, act: readsSlowly },
  badBody: { clients: 1, act: sendsNonsense },
}

async function main(): Promise<void> {
  const options = new Command("bench/robust/endurance.ts")
    .option("--model <name>", "fake, or as for serve", "fake")
    .option("--minutes <n>", "of the load", numberIn(0.2, 10_000), 30)
    .option("--clients <n>", "times as many clients", wholeNumber(1, 100), 1)
    .option("--port <n>", "of the server", port, 18440)
    .parse()
    .opts<{ model: string; minutes: number; clients: number; port: number }>()
  const more = ["--max-queue", String(QUEUE), "--context", "1024", "--max-batch-tokens", "512"]
  const served = await startServer(options.model, options.port, more)
  const durationMs = options.minutes * 60_000
  const tallies = new Map<string, Tally>()
  const memory = await load(served, durationMs, options.clients, tallies)
  const idleMs = await idle(served, END_MS)
  await sleep(1000)
  const after = await counters(served)
  const fromMs = performance.now()
  const { exited } = served.server
  process.kill(served.server.pid, "SIGTERM")
  const [code] = await exited
  const stopMs = Math.round(performance.now() - fromMs)
  const zero = {
    running: total(after, "vllm:num_requests_running"),
    waiting: total(after, "vllm:num_requests_waiting"),
    bestEffort: total(after, "slos_serve_num_requests_best_effort"),
    prefillBacklogTokens: total(after, "slos_serve_prefill_backlog_tokens"),
    queuePlaces: total(after, "slos_serve_queue_places_taken"),
    /** KV that is in use and not only cached: blocks, as a share of all. */
    kvUsedNotCached: Math.max(0, kvUsed(after)),
    failedSteps: total(after, "slos_serve_failed_steps_total"),
    hungSteps: total(after, "slos_serve_watchdog_trips_total"),
    engineDown: 1 - total(after, "slos_serve_engine_up"),
  }
  const unexpected = [...tallies].flatMap(([name, { ends }]) =>
    [...ends].filter(([end]) => !EXPECTED.has(end)).map(([end, times]) => `${name}: ${end} (${times})`),
  )
  const settled = memory.filter(([minute]) => minute > options.minutes * SETTLING)
  const result = {
    ...{ model: options.model, minutes: options.minutes, clients: options.clients },
    requests: Object.fromEntries(
      [...tallies].map(([name, { sent: count, ends }]) => [
        name,
        { sent: count, ...Object.fromEntries(ends) },
      ]),
    ),
    unexpected,
    idleMs,
    zero,
    exit: { code, stopMs },
    rssMiB: {
      settledFrom: settled[0]?.[1],
      end: settled.at(-1)?.[1],
      most: Math.max(...memory.map(([, rss]) => rss)),
      perMinute:
        settled.length < 3 ? null : round(linearRegression(settled.map(([minute, rss]) => [minute, rss])).m),
      series: thinned(memory),
    },
  }
  console.log(JSON.stringify(result, null, 2))
  const dirty = Object.values(zero).some((value) => value !== 0)
  if (dirty || idleMs === null || unexpected.length > 0 || code !== 0) process.exitCode = 1
}

/** All clients until the time is over, and floods; resident memory by the minute. */
async function load(
  served: Served,
  durationMs: number,
  times: number,
  tallies: Map<string, Tally>,
): Promise<[minute: number, rssMiB: number][]> {
  const startMs = performance.now()
  const over = () => performance.now() - startMs > durationMs
  const note = async (name: string, act: Promise<string>) => {
    const tally = tallies.get(name) ?? { sent: 0, ends: new Map<string, number>() }
    tallies.set(name, tally)
    tally.sent++
    const end = await Promise.race([
      act.catch((error: Error) => `error: ${error.message}`),
      sleep(END_MS, "no end", { ref: false }),
    ])
    tally.ends.set(end, (tally.ends.get(end) ?? 0) + 1)
  }
  const clients = Object.entries(BEHAVIOURS).flatMap(([name, { clients: count, act }]) =>
    Array.from({ length: count * times }, async (_, i) => {
      const random = new Random(name, i)
      while (!over()) {
        await note(name, act(served, random))
        await sleep(random.integer(0, PAUSE_MS))
      }
    }),
  )
  const floods = (async () => {
    const random = new Random("flood")
    while (!over()) {
      await sleep(Math.min(FLOOD_EVERY_MS, durationMs / 4))
      await Promise.all(Array.from({ length: FLOOD }, () => note("flood", answered(served, {}, random))))
    }
  })()
  const memory: [number, number][] = []
  const scraper = setInterval(async () => {
    const now = await counters(served).catch(() => null)
    if (now === null) return
    const rssMiB = total(now, "process_resident_memory_bytes") / 2 ** 20
    memory.push([round((performance.now() - startMs) / 60_000), round(rssMiB)])
  }, 2000)
  await Promise.all([...clients, floods])
  clearInterval(scraper)
  return memory
}

/** What may become of a request. */
const EXPECTED = new Set(["ok", "429 queue_full", "cancelled", "reset", "400", "dropped while slow"])

function fieldsOf(random: Random): { prompt: number[]; max_tokens: number; ignore_eos: boolean } {
  return {
    prompt: Array.from({ length: random.integer(1, 300) }, () => random.integer(32, 250)),
    max_tokens: random.integer(1, 60),
    ignore_eos: random.uniform() < 0.5,
  }
}

function post({ server }: Served, fields: object, signal?: AbortSignal): Promise<Response> {
  return fetch(`${server.target.url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(fields),
    ...(signal && { signal }),
  })
}

async function answered(served: Served, more: object, random: Random): Promise<string> {
  const fields = { ...fieldsOf(random), ...more }
  const response = await post(served, fields)
  return endOf(response.status, await response.text(), "stream" in more && more.stream === true)
}

function endOf(status: number, text: string, stream: boolean): string {
  const code = /"code":"(\w+)"/.exec(text)?.[1]
  if (status !== 200 || code !== undefined) return code === undefined ? String(status) : `${status} ${code}`
  const whole = stream ? text.endsWith("data: [DONE]\n\n") : /"finish_reason":"(stop|length)"/.test(text)
  return whole ? "ok" : "cut off"
}

/** Rounds of a conversation, each with what was said before. */
async function inSession(served: Served, random: Random): Promise<string> {
  const session = `session ${random.integer(0, 1e9)}`
  let { prompt, ...fields } = fieldsOf(random)
  for (let i = 0; i < 3; i++) {
    const response = await post(served, { ...fields, prompt, slo: { session } })
    const end = endOf(response.status, await response.text(), false)
    if (end !== "ok") return end
    prompt = [...prompt, ...Array.from({ length: 20 }, () => random.integer(32, 250))]
  }
  return "ok"
}

async function cancels(served: Served, random: Random): Promise<string> {
  const signal = AbortSignal.timeout(random.integer(0, 300))
  const fields = {
    ...fieldsOf(random),
    max_tokens: 600,
    ignore_eos: true,
    stream: random.uniform() < 0.5,
    n: random.integer(1, 4),
  }
  try {
    const response = await post(served, fields, signal)
    return endOf(response.status, await response.text(), fields.stream)
  } catch (error) {
    return signal.aborted ? "cancelled" : `error: ${(error as Error).message}`
  }
}

async function resets(served: Served, random: Random): Promise<string> {
  const socket = await sent(
    served,
    rawCompletion({ ...fieldsOf(random), max_tokens: 600, ignore_eos: true, stream: random.uniform() < 0.5 }),
  )
  await sleep(random.uniform() < 0.5 ? 0 : random.integer(0, 100))
  socket.resetAndDestroy()
  return "reset"
}

async function halfCloses(served: Served, random: Random): Promise<string> {
  const stream = random.uniform() < 0.5
  const socket = connect({ port: served.port, host: "127.0.0.1", allowHalfOpen: true })
  let text = ""
  socket.on("data", (part) => (text += part))
  const ended = new Promise<void>((resolve, reject) => {
    socket.on("end", () => resolve())
    socket.on("error", reject)
  })
  socket.end(rawCompletion({ ...fieldsOf(random), stream }))
  await ended
  socket.destroy()
  const status = Number(/HTTP\/1\.1 ([2-5]\d\d)/.exec(text)?.[1])
  return endOf(
    status,
    stream && status === 200 ? `${text.includes("data: [DONE]") ? "data: [DONE]\n\n" : ""}` : text,
    stream,
  )
}

/** A stream that is read now and then, to its end or not. */
async function readsSlowly(served: Served, random: Random): Promise<string> {
  const fields = { ...fieldsOf(random), max_tokens: 200, ignore_eos: true, stream: true, logprobs: 20, n: 2 }
  const socket = await sent(served, rawCompletion(fields))
  let [text, dropped] = ["", false]
  socket.on("data", (part) => (text = (text + part).slice(-4000)))
  socket.on("close", () => (dropped = true))
  for (let i = 0; i < 20 && !dropped && !/\[DONE\]|"code":"/.test(text); i++) {
    socket.pause()
    await sleep(random.integer(100, 1500))
    socket.resume()
    await sleep(20)
  }
  const code = /"code":"(\w+)"/.exec(text)?.[1]
  socket.destroy()
  return code === undefined ? (text.includes("[DONE]") ? "ok" : "dropped while slow") : `429 ${code}`
}

async function sendsNonsense(served: Served, random: Random): Promise<string> {
  const bodies = [
    { prompt: 5 },
    { prompt: "a", n: -1 },
    { prompt: [] },
    { prompt: [1, "a"] },
    { prompt: "a", max_tokens: 1e9 },
  ]
  const response = await post(served, bodies[random.integer(0, bodies.length)]!)
  const text = await response.text()
  await sleep(200)
  // One that is found too long only when it is read may find the queue full first.
  return response.status === 400 ? "400" : endOf(response.status, text, false)
}

/** Of the KV that is taken, what is no cache; in tokens. */
function kvUsed(of: ReadonlyMap<string, number>): number {
  return Math.round(total(of, "slos_serve_kv_used_tokens") - total(of, "slos_serve_kv_cached_tokens"))
}

function thinned(memory: readonly [number, number][]): [number, number][] {
  const every = Math.max(1, Math.ceil(memory.length / 30))
  return memory.filter((_, i) => i % every === 0)
}

const round = (value: number) => Number(value.toFixed(2))

await main()
